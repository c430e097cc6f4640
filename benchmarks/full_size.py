"""DeoccAnything at its full size with random weights, end to end on this machine: nothing is downloaded.

Writes the published layouts (866 M UNet, SD2's VAE, OpenCLIP-H text, mask decoder, SAM ViT-B), converts them, compiles
the bundle to OpenVINO within `deocc complete`, and times the steps. Each stage is a process of its own, so that its
peak memory is its own.

python -m benchmarks.full_size run [--small] [--work DIR]
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

EXAMPLE = Path(__file__).parent.parent / "examples" / "street.png"
POINT = (200, 260)
SIDE = 1024  # pixels of the photo's longer side
GIGABYTE = 1024**3

app = typer.Typer()


@app.command()
def run(
    small: Annotated[bool, typer.Option(help="small networks of the same layouts")] = False,
    steps: Annotated[int, typer.Option(help="denoising steps of each stage")] = 4,
    work: Annotated[Path, typer.Option(help="for some 9 GB of files; what is there already is used")] = Path(
        "out/full"
    ),
) -> None:
    """Runs all stages and prints seconds and peak memory of each."""
    work.mkdir(parents=True, exist_ok=True)
    published, bundle = work / "published", work / "deocc-anything"
    own = [sys.executable, "-m", "benchmarks.full_size"]
    size = ["--small"] if small else []
    stages: dict[str, Sequence[str]] = {}
    if not published.is_dir():
        stages["write published layouts"] = [*own, "write", str(published), *size]
    if not bundle.is_dir():
        stages["convert to a float16 bundle"] = [*own, "convert", str(published), str(bundle), *size]
    stages["deocc complete, compiling"] = [
        *(sys.executable, "-c", "from deocc.cli import main; main()", "complete", str(work / "photo.png")),
        *("--engine", str(bundle), "--point", f"{POINT[0]},{POINT[1]}", "--text", "a red car", "--seed", "1"),
        *("--steps", str(steps), "--timeout", "7200", "-o", str(work / "out.png"), "--json"),
    ]
    stages["timed steps, compiled"] = [*own, "steps", str(bundle), str(work / "photo.png"), str(steps)]
    _write_photo(work / "photo.png")
    os.environ["DEOCC_CACHE"] = str((work / "cache").resolve())
    table = Table("stage", "s", "peak GB")
    for name, command in stages.items():
        seconds, peak = _child(command)
        table.add_row(name, f"{seconds:.1f}", f"{peak / GIGABYTE:.2f}")
    Console(width=100).print(table)


@app.command()
def write(folder: Path, small: bool = False) -> None:
    """Random weights as they are published, one network at a time in memory."""
    import torch

    from benchmarks import published

    sizes = published.SMALL if small else published.FULL
    torch.manual_seed(0)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    published.write_base(partial / "base", sizes, published.random_text(sizes).half(), published.random_vae(sizes))
    published.write_checkpoint(partial / "unet.ckpt", published.random_unet(sizes))
    published.write_checkpoint(partial / "mask-decoder.ckpt", published.random_mask_decoder(sizes))
    torch.save(published.random_sam(sizes).state_dict(), partial / "sam.pth")
    partial.rename(folder)


@app.command()
def convert(folder: Path, bundle: Path, small: bool = False) -> None:
    """As `deocc engines convert` does."""
    from benchmarks.published import FULL, SMALL
    from deocc_engines.convert.assembly import convert_files
    from deocc_engines.convert.published import COMPLETER, PublishedSam
    from deocc_engines.convert.recipe import ConvertOptions, recipe_of

    options = ConvertOptions(out=bundle)
    recipe = recipe_of(COMPLETER, options)
    assert isinstance(recipe.segmenter, PublishedSam)
    sam = dataclasses.replace(recipe.segmenter, config=(SMALL if small else FULL).sam)
    convert_files(
        dataclasses.replace(recipe, segmenter=sam),
        [folder / "base", folder / "unet.ckpt", folder / "mask-decoder.ckpt", folder / "sam.pth"],
        options,
        accept=lambda terms: True,  # of weights that are random
        say=typer.echo,
    )


@app.command()
def steps(bundle: Path, photo: Path, count: int) -> None:
    """Seconds a step without guidance (1 forward pass) and with both scales (3, in one batch)."""
    from deocc import Client, Progress

    for name, image, text in (("1 pass", 1.0, 1.0), ("3 passes", 2.0, 3.0)):
        with Client(local=True, engine=str(bundle), timeout=7200) as client:
            ticks: dict[str, list[float]] = {}
            events = client.stream(
                photo, points=[POINT], text="fruit", steps=count, seed=1, guidance_image=image, guidance_text=text
            )
            for event in events:
                if isinstance(event, Progress):
                    ticks.setdefault(event.stage.name, []).append(time.perf_counter())
        each = {stage: (t[-1] - t[0]) / (len(t) - 1) for stage, t in ticks.items() if len(t) > 1}
        typer.echo(json.dumps({"guidance": name, "seconds_a_step": {k: round(v, 4) for k, v in each.items()}}))


def _write_photo(file: Path) -> None:
    from PIL import Image

    with Image.open(EXAMPLE) as example:
        scale = SIDE / max(example.size)
        example.convert("RGB").resize((round(example.width * scale), round(example.height * scale))).save(file)


def _child(command: Sequence[str]) -> tuple[float, int]:
    """Seconds and peak bytes of a process."""
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], list(command), os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


if __name__ == "__main__":
    app()
