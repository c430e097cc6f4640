"""From finished runs to a bundle."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import save_file
from torch import nn

from deocc_engines.bundle import COMPONENTS, OPTIONAL, Bundle, seal
from deocc_engines.components import Networks
from deocc_engines.networks.autoencoder import MaskDecoder
from deocc_engines.networks.refiner import MaskRefiner, Refiner
from deocc_engines.networks.sam import Sam
from deocc_engines.storage import eight_bit, half
from deocc_training import mask_refiner, refiner, segmenter, unet
from deocc_training.autoencoder import SIZE, pretrained
from deocc_training.loop import load_ema
from deocc_training.windows import GLOBAL_MARGIN

__all__ = ["MANIFEST", "write_bundle"]

RUNS = (
    *("autoencoder", "autoencoder-decoder", "mask-decoder", "unet", "mask-decoder-predicted", "segmenter"),
    *("refiner", "mask-refiner"),
)
EIGHT_BIT = ("text_encoder", "unet")  # the largest ones
MANIFEST: dict[str, Any] = {
    "name": "deocc-mini",
    "licence": "Apache-2.0",
    "commercial_use": True,
    "window": SIZE,
    "schedule": {"name": "DDIMScheduler", "config": unet.SCHEDULE},
    # Chosen on training scenes. Few steps stay near the mean of what may be hidden, where IoU and PSNR are best; many
    # draw sharper and less likely pictures. The refiner does not gain by the mean of several draws, and several samples
    # of one draw differ more, so that there is something to choose from. A right caption helps most at text guidance 2.
    "presets": {
        "fast": {"steps": 2, "guidance_image": 1.0, "guidance_text": 2.0, "local_strength": 1.0},
        "quality": {"steps": 20, "guidance_image": 2.0, "guidance_text": 2.0, "local_strength": 1.0},
    },
    "closer_look": 1.2,
    "global_margin": GLOBAL_MARGIN,
    "mask_resize": "area",
    "mirror_odd_seeds": True,
    "whole_below": 0.1,
    # Leaves as much room to 90 % recall as to 5 % false alarms on held-out scenes 700 to 1199, which are not reported.
    "whole_above": 0.2,
}


def write_bundle(folder: Path, networks: Networks, tokenizer: Path, manifest: dict[str, Any]) -> Bundle:
    """Writes configurations, weights, the tokenizer and the manifest; other files of the folder stay.

    Args:
        manifest: everything but `schema` and `files`.
    """
    for component in (*COMPONENTS, *OPTIONAL):
        module: nn.Module | None = getattr(networks, component)
        if module is None:
            continue
        target = folder / component
        target.mkdir(parents=True, exist_ok=True)
        config = dataclasses.asdict(module.config)  # type: ignore[call-overload]
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        kept = eight_bit if component in EIGHT_BIT else half
        save_file(kept(module.state_dict()), target / "model.safetensors")
    (folder / "tokenizer").mkdir(exist_ok=True)
    shutil.copyfile(tokenizer, folder / "tokenizer" / "tokenizer.json")
    return seal(folder, manifest)


def _latest(runs: Path, *names: str) -> Path:
    return next((runs / name for name in names if (runs / name).is_dir()), runs / names[-1])


def main(
    runs: Annotated[Path, typer.Option(help="the directory of the runs")],
    out: Annotated[Path, typer.Option(help="the bundle's directory")],
) -> None:
    """Packs the runs named in RUNS as deocc-mini; the two that train a decoder on and the refiners may be absent."""
    vae = pretrained(_latest(runs, "autoencoder-decoder", "autoencoder"))
    decoder = MaskDecoder(vae.config)
    load_ema(_latest(runs, "mask-decoder-predicted", "mask-decoder"), decoder)
    conditioned = unet.finished(runs / "unet")
    sam = Sam(segmenter.MINI)
    load_ema(runs / "segmenter", sam)
    mends, sharpens = (runs / name for name in ("refiner", "mask-refiner"))
    refined = load_ema(mends, Refiner(refiner.MINI)) if mends.is_dir() else None
    sharpened = load_ema(sharpens, MaskRefiner(mask_refiner.MINI)) if sharpens.is_dir() else None
    trained = {}
    for name in filter(lambda name: (runs / name).is_dir(), RUNS):
        state = torch.load(runs / name / "ema.pt", weights_only=True)
        hours = {device: round(seconds / 3600, 3) for device, seconds in state["seconds"].items()}
        trained[name] = {"steps": state["step"], "hours": hours}
    networks = Networks(conditioned.text, vae, conditioned.unet, decoder, sam, refined, sharpened)
    bundle = write_bundle(out, networks, runs / "words" / "tokenizer.json", {**MANIFEST, "trained": trained})
    typer.echo(bundle.engine_id)


if __name__ == "__main__":
    typer.run(main)
