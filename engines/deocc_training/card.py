"""The model card of a bundle: its text from the manifest and a report, its sheet from scenes that may be shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from deocc_engines.bundle import Bundle
from deocc_engines.loading import load_deoccluder
from deocc_training.scenes import SceneSet
from deocc_training.sheets import results

__all__ = ["render"]

SHOWN = 24  # scenes on the sheet: the first ones, as they come

COLUMNS = {
    "scenes": "scenes",
    "miou": "amodal mIoU",
    "modal_miou": "*modal mask*",
    "hull_miou": "*convex hull*",
    "clipped_hull_miou": "*hull clipped*",
    "invisible_iou": "invisible IoU",
    "hull_invisible_iou": "*hull*",
    "clipped_hull_invisible_iou": "*hull clipped*",
    "said_whole": "said whole",
    "click1_iou": "segmenter, 1 click",
    "click3_iou": "3 clicks",
}

TEXT = """# {name}

**A first version, undertrained: read the figures before relying on it.**

A small DeoccAnything and a small SAM that make deocc work on any machine, with no download and no GPU. They were
trained from nothing on two CPU cores; take them for what the figures below say and no more. For real photographs in
earnest, serve a full-size engine.

- **Completer:** latent diffusion on {window}-pixel windows, global then local. Autoencoder f8 with 4 channels;
  13 → 4 channel UNet with the conditions in DeoccAnything's order; mask decoder; {schedule}, {steps} steps a stage,
  image guidance {guidance_image} by default (three forward passes a step; 1 is three times faster and worse).
- **Segmenter:** segment-anything's own modules at {sam_size} pixels.
- **Text:** a frozen table of token vectors distilled from all-MiniLM-L6-v2 under two trained layers. English.
- **Licence:** {licence}.
- **Engine id:** `{engine_id}`. Weights are float16; OpenVINO runs them in bfloat16 where the processor can.

## Training

| network | steps | hours (two busy cores, shared) |
|---|---|---|
{trained}

Data: 24,000 scenes composited from cut-outs whose complete shape is known: Fluent emoji 3D renders (MIT), openclipart
drawings (public domain), tuxpaint stamps (mostly photographs; GPL-2, trained on, not shipped) over desktop wallpapers
(GPL-2+ and CC-BY-SA, trained on, not shipped) and drawn backgrounds; up to 3 objects behind and 3 in front, 15 %
unoccluded. One identity in ten is held out. The denoiser saw the first 10,000 scenes in two windows each. Code:
`deocc_training`.

## Held-out figures

Means over instances of {scenes} scenes whose target identity was never trained on (occluders may have been), the true
modal mask given, one sample, seed 0, no ground truth used in any choice. In italics: answers that need no model.

{table}

*Invisible IoU* is the IoU of the hidden part alone. *Hull clipped* keeps the hull where the object is visible or
something stands in front. *Said whole* is the share with the verdict "already whole". Command:
`python -m deocc_training.report`.

## What it does not do

- Shapes it has not met are guessed from what is visible; large hidden parts come out blurred, and fine texture is
  beyond a 16 x 16 latent.
- Photographs: {photographs} photographic cut-outs were all it learnt from, and none was a whole scene.
- The segmenter is undertrained: one click finds the object roughly at best. Give a mask where you have one.
- The completer loses to the hull baselines in the table, and to the modal mask where little is hidden.
- The verdict "already whole" is a threshold on the predicted hidden share, not a trained classifier.

## Results by index

The first {shown} held-out scenes as they come, good and bad: photo with the visible part outlined, result, truth.
(Scenes of cut-outs and backgrounds that may be shown.)

![First {shown} held-out scenes](sheet.jpg)
"""


def render(bundle: Bundle, report: dict[str, Any], shown: int, photographs: int) -> str:
    """The card's Markdown."""
    manifest, preset = bundle.manifest, next(iter(bundle.presets().values()))
    trained = [f"| {name} | {run['steps']:,} | {run['hours']} |" for name, run in manifest["trained"].items()]
    return TEXT.format(
        name=manifest["name"],
        window=manifest["window"],
        schedule=manifest["schedule"]["name"].removesuffix("Scheduler"),
        steps=preset.steps,
        guidance_image=preset.guidance_image,
        sam_size=bundle.config("sam")["image_size"],
        licence=manifest["licence"],
        engine_id=bundle.engine_id,
        trained="\n".join(trained),
        scenes=report["scenes"],
        table=_table(report["summary"]),
        photographs=photographs,
        shown=shown,
    )


def _table(summary: dict[str, dict[str, float]]) -> str:
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for group, means in summary.items():
        cells = [_cell(key, means.get(key)) for key in COLUMNS]
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    return str(int(value)) if key == "scenes" else f"{value:.3f}".lstrip("0") if value < 1 else "1.000"


def main(
    report: Annotated[Path, typer.Option(help="report.json of this bundle")],
    scenes: Annotated[Path, typer.Option(help="held-out scenes that may be shown")],
    bundle: Annotated[Path, typer.Option()],
    only: Annotated[Path | None, typer.Option(help="a JSON list of the indices to take")] = None,
    photographs: Annotated[int, typer.Option(help="photographic cut-outs in the training split")] = 284,
) -> None:
    """Writes README.md and sheet.jpg into the bundle."""
    opened, figures = Bundle.open(bundle), json.loads(report.read_text())
    if figures["engine_id"] != opened.engine_id:
        raise typer.BadParameter(f"the report is of {figures['engine_id']}, the bundle is {opened.engine_id}")
    held_out = SceneSet.open(scenes)
    indices = (json.loads(only.read_text()) if only else list(range(len(held_out))))[:SHOWN]
    deoccluder, _ = load_deoccluder(str(bundle))
    Image.fromarray(results(deoccluder, held_out, indices)).save(bundle / "sheet.jpg", quality=85)
    (bundle / "README.md").write_text(render(opened, figures, len(indices), photographs))


if __name__ == "__main__":
    typer.run(main)
