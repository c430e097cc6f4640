"""From a bundle back to runs: what is needed to train its networks on when their training state is gone."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import save_file
from torch import nn

from deocc_engines.bundle import Bundle
from deocc_engines.components import load_networks
from deocc_engines.networks.text import TextEncoder
from deocc_training.loop import save
from deocc_training.unet import Conditioned

__all__ = ["unpack"]


def unpack(folder: Path, runs: Path) -> None:
    """Writes a run for every network of a bundle, and the words; runs that are there already stay.

    The optimiser's moments are gone: they start from nothing, with a warm-up.
    """
    bundle = Bundle.open(folder)
    bundle.check()
    networks = load_networks(bundle)
    text = networks.text_encoder
    if not isinstance(text, TextEncoder):
        raise typer.BadParameter("only deocc-mini is trained here", param_hint="--bundle")
    trained = bundle.manifest.get("trained", {})
    modules: dict[str, nn.Module] = {
        "autoencoder": networks.vae,
        "mask-decoder": networks.mask_decoder,
        "unet": Conditioned(networks.unet, text),
        "segmenter": networks.sam,
    }
    if networks.refiner is not None:
        modules["refiner"] = networks.refiner
    if networks.mask_refiner is not None:
        modules["mask-refiner"] = networks.mask_refiner
    for name, module in modules.items():
        if not (runs / name).exists():
            (runs / name).mkdir(parents=True)
            parts = [entry for run, entry in trained.items() if run.startswith(name)]  # a decoder may be trained on
            seconds = Counter[str]()
            for part in parts:
                seconds.update({device: 3600 * hours for device, hours in part["hours"].items()})
            save(runs / name, sum(part["steps"] for part in parts), seconds, module, module)
            if name == "autoencoder":
                (runs / name / "scale.txt").write_text(str(networks.vae.config.scale))
    words = runs / "words"
    if not words.exists():
        words.mkdir(parents=True)
        shutil.copyfile(folder / "tokenizer" / "tokenizer.json", words / "tokenizer.json")
        table = text.get_parameter("table.weight").data
        save_file({"table": table.contiguous()}, words / "table.safetensors")


def main(
    bundle: Annotated[Path, typer.Option(help="the bundle's directory")],
    runs: Annotated[Path, typer.Option(help="the directory of the runs")],
) -> None:
    """Writes the runs that the training commands then resume."""
    unpack(bundle, runs)


if __name__ == "__main__":
    typer.run(main)
