"""The model card of a bundle: its text from the manifest and a report, its sheet from scenes that may be shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from deocc_engines.bundle import Bundle
from deocc_engines.loading import load_deoccluder
from deocc_engines.networks.autoencoder import AutoencoderConfig
from deocc_engines.prompt import Box, Point, Prompt
from deocc_training.report import bar
from deocc_training.scenes import SceneSet
from deocc_training.sheets import answered, results
from deocc_training.sources import default_cache, load_index
from deocc_training.splits import split_of

__all__ = ["render"]

SHOWN = 24  # scenes on the sheet: the first ones, as they come
# Real photographs, of scikit-image's (public domain or CC0), and what is asked for in them.
PHOTOGRAPHS = (
    ("coffee", Prompt(points=(Point(106, 228),))),  # the saucer
    ("coffee", Prompt(box=Box(170, 16, 414, 288))),  # the cup
    ("astronaut", Prompt(points=(Point(69, 377),))),
    ("astronaut", Prompt(box=Box(280, 343, 503, 512))),  # the helmet
    ("chelsea", Prompt(points=(Point(259, 212),))),
    ("rocket", Prompt(box=Box(264, 131, 379, 424))),
)

COLUMNS = {
    "scenes": "scenes",
    "miou": "amodal mIoU",
    "modal_miou": "*modal mask*",
    "hull_miou": "*convex hull*",
    "clipped_hull_miou": "*hull clipped*",
    "miou_best8": "best of 8",
    "invisible_iou": "invisible IoU",
    "hull_invisible_iou": "*convex hull*",
    "clipped_hull_invisible_iou": "*hull clipped*",
    "invisible_iou_best8": "best of 8",
    "psnr": "PSNR of the hidden part, dB",
    "telea_psnr": "*Telea*",
    "said_whole": "said whole",
    "click1_iou": "segmenter, 1 click",
    "click3_iou": "3 clicks",
}
FIGURES = {
    "miou": "amodal mIoU, one sample",
    "invisible_iou": "IoU of the hidden part, one sample",
    "miou_best8": "amodal mIoU, best of 8 (chosen by an oracle)",
    "invisible_iou_best8": "IoU of the hidden part, best of 8 (oracle)",
    "rank_gain": "IoU of the hidden part, the sample ranked first of 8 over the mean of the 8",
    "psnr_gain_telea": "PSNR of the hidden part over Telea inpainting, true mask given to both, dB",
    "fast_minus_quality": "IoU of the hidden part, preset fast minus quality",
    "unoccluded_miou": "not occluded at all: mIoU",
    "whole_recall": "not occluded at all: said to be whole",
    "whole_false": "more than 10 % occluded: said to be whole",
    "segmenter_1click": "segmenter, modal mIoU after 1 click",
    "segmenter_3clicks": "after 3 clicks",
    "text_gain": "more than half hidden: IoU of the hidden part, right caption over another object's",
}

MIRRORED = "- **Seeds:** odd ones see the photo mirrored, so that samples differ by what the networks do not know.\n"

TEXT = """# {name}

A small DeoccAnything and a small SAM that make deocc work on any machine, with no download and no GPU. All but the
segmenter's backbone was trained from nothing, within minutes on a GPU or hours on two CPU cores; take them for what the
figures below say and no more. For real photographs in earnest, serve a full-size engine.

- **Completer:** latent diffusion in {window}-pixel windows: first the object's surroundings, then the object.
  Autoencoder f{factor} with {latent} channels; {inputs} → {latent} channel UNet with the conditions in DeoccAnything's
  order; mask decoder; {schedule}.{refiner}
- **Segmenter:** segment-anything's own modules at {sam_size} pixels on the features of an EfficientNet-Lite2, which
  started from its published ImageNet weights (Apache-2.0).{closer}{mask_refiner}
- **Text:** a frozen table of token vectors distilled from all-MiniLM-L6-v2 under two trained layers. English.
- **Presets:** {presets}. One forward pass a step with guidance 1, up to three
  otherwise; text guidance counts where there is a text.
{mirrored}- **Licence:** {licence}.
- **Engine id:** `{engine_id}`. Weights are float16, those of the UNet and the text encoder int8 with a scale
  a row; OpenVINO runs them in bfloat16 where the processor can.

## Training

| network | steps | time |
|---|---|---|
{trained}

Data: {learnt} composited from cut-outs whose complete shape is known: Fluent emoji 3D renders (MIT),
openclipart drawings (public domain), tuxpaint stamps (mostly photographs; GPL-2, trained on, not shipped) and, for the
refiner alone, 3D models of furniture (CC0 and CC-BY, trained on, not shipped), over desktop wallpapers (GPL-2+ and
CC-BY-SA, trained on, not shipped) and drawn backgrounds; up to 3 objects behind and 3 in front, 15 % unoccluded.
Objects are bent, views stretched and lit at random. One identity in ten is held out, look-alikes together.
Code: `deocc_training`.

## Held-out figures

{scenes} scenes whose objects were never trained on, the true modal mask given to the completer, seed 0, default preset.
Means over instances; over those more than 1 % occluded where nothing else is said. `make mini-report` prints them.

| figure | measured | the project's bar |
|---|---|---|
{figures}

What the missed bars would need is in deocc_training's README, "What falls short".

By group; in italics, answers that need no model. *Hull clipped* keeps the hull where the object is visible or something
stands in front of it, which only the truth knows.

{table}

## What it does not do

- Large hidden parts come out blurred: it was taught to err little, not to look sharp.
- Photographs: {photographs} photographic cut-outs were all it learnt from, and none was a whole scene.
- One click often finds a part of the object or more than it. Give further clicks, a box, or a mask where you have one.
- The verdict "already whole" is {verdict}.

## Results by index

The first {shown} held-out scenes as they come, good and bad: photo with the visible part outlined, result, truth.
(Scenes of cut-outs and backgrounds that may be shown.)

![First {shown} held-out scenes](sheet.jpg)

Real photographs are another matter: green, what was asked; outlined, what the segmenter took for the visible part;
beside it, what the completer made of that. (scikit-image's coffee, astronaut, chelsea and rocket.)

![Six prompts in real photographs](photographs.jpg)
"""


def render(bundle: Bundle, report: dict[str, Any], shown: int, photographs: int, learnt: str, gpu: str) -> str:
    """The card's Markdown.

    Args:
        photographs: photographic cut-outs that were learnt from.
        learnt, gpu: as of `main`.
    """
    manifest = bundle.manifest
    trained = [
        f"| {name} | {run['steps']:,} | {_times(run['hours'], gpu)} |" for name, run in manifest["trained"].items()
    ]
    unet, vae = bundle.config("unet"), AutoencoderConfig(**bundle.config("vae"))
    presets = [
        f"`{name}` ({p.steps} steps a stage, {p.draws} draw{'s' * (p.draws > 1)}, image guidance {p.guidance_image:g}, "
        f"text guidance {p.guidance_text:g})"
        for name, p in bundle.presets().items()
    ]
    refined = bundle.holds("refiner")
    figures = [f"| {text} | {_cell(name, report[name])} | {bar(name)} |" for name, text in FIGURES.items()]
    return TEXT.format(
        name=manifest["name"],
        window=manifest["window"],
        factor=vae.factor,
        latent=vae.latent_channels,
        inputs=1 + 3 * unet["latent_channels"],
        schedule=manifest["schedule"]["name"].removesuffix("Scheduler"),
        refiner=" A refiner then mends mask and colours at the window's full resolution." if refined else "",
        closer=" It looks twice: at the photo, and at the part around its answer." if "closer_look" in manifest else "",
        mask_refiner=" A refiner then looks at each answer close up." if bundle.holds("mask_refiner") else "",
        verdict="the refiner's, which has only seen composited scenes"
        if refined
        else "a threshold on the hidden share",
        presets=", ".join(presets),
        mirrored=MIRRORED if manifest.get("mirror_odd_seeds") else "",
        sam_size=bundle.config("sam")["image_size"],
        licence=manifest["licence"],
        engine_id=bundle.engine_id,
        trained="\n".join(trained),
        photographs=photographs,
        learnt=learnt,
        scenes=report["scenes"],
        figures="\n".join(figures),
        table=_table(report["groups"]),
        shown=shown,
    )


def _times(hours: dict[str, float], gpu: str) -> str:
    places = {device: {"cpu": "a CPU", "cuda": gpu}.get(device, f"a GPU ({device})") for device in hours}
    return ", ".join(f"{60 * value:.1f} min on {places[device]}" for device, value in hours.items())


def _table(summary: dict[str, dict[str, float]]) -> str:
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for group, means in summary.items():
        cells = [_cell(key, means.get(key)) for key in COLUMNS]
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    return str(int(value)) if key == "scenes" else f"{value:.1f}" if "psnr" in key else f"{value:.3f}"


def _photographs() -> list[tuple[np.ndarray, Prompt]]:
    try:
        from skimage import data
    except ImportError as error:
        raise ModuleNotFoundError("pip install scikit-image") from error
    return [(np.asarray(getattr(data, name)()), prompt) for name, prompt in PHOTOGRAPHS]


def _photographic_cutouts() -> int:
    cutouts, _ = load_index(default_cache())
    return sum(cutout.kind == "photograph" and split_of(cutout.identity) == "train" for cutout in cutouts)


def main(
    report: Annotated[Path, typer.Option(help="report.json of this bundle")],
    scenes: Annotated[Path, typer.Option(help="held-out scenes that may be shown")],
    bundle: Annotated[Path, typer.Option()],
    learnt: Annotated[str, typer.Option(help='what was trained on, e.g. "48,000 scenes"')],
    gpu: Annotated[str, typer.Option(help="where runs that recorded no card's name ran")] = "a GPU",
) -> None:
    """Writes README.md, sheet.jpg and photographs.jpg into the bundle."""
    opened, figures = Bundle.open(bundle), json.loads(report.read_text())
    if figures["engine_id"] != opened.engine_id:
        raise typer.BadParameter(f"the report is of {figures['engine_id']}, the bundle is {opened.engine_id}")
    held_out = SceneSet.open(scenes)
    indices = range(min(SHOWN, len(held_out)))
    deoccluder, _ = load_deoccluder(str(bundle))
    Image.fromarray(results(deoccluder, held_out, indices)).save(bundle / "sheet.jpg", quality=85)
    Image.fromarray(answered(deoccluder, _photographs())).save(bundle / "photographs.jpg", quality=85)
    (bundle / "README.md").write_text(render(opened, figures, len(indices), _photographic_cutouts(), learnt, gpu))


if __name__ == "__main__":
    typer.run(main)
