"""Plans of the full-size networks with random weights: sizes and seconds, on a machine without a GPU.

Takes the bundle that `benchmarks.full_size` makes, or makes it; some 12 GB of files and 10 GB of memory.

python -m benchmarks.plans [--small] [--sm 89] [--work DIR]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

CALLS = ("denoise", "sam_encode", "encode_image", "decode_image")  # the UNet, SAM ViT-B's encoder, the VAE


def main(
    small: Annotated[bool, typer.Option(help="small networks of the same layouts")] = False,
    sm: Annotated[list[str] | None, typer.Option(help="compute capability; may be repeated")] = None,
    batch: Annotated[int, typer.Option(help="rows of the static profile")] = 1,
    work: Annotated[Path, typer.Option(help="what is there already is used")] = Path("out/full"),
) -> None:
    """Builds, and prints one line a plan."""
    published, bundle = work / "published", work / "deocc-anything"
    own, size = [sys.executable, "-m", "benchmarks.full_size"], ["--small"] if small else []
    work.mkdir(parents=True, exist_ok=True)
    if not published.is_dir():
        subprocess.run([*own, "write", str(published), *size], check=True)  # noqa: S603
    if not bundle.is_dir():
        subprocess.run([*own, "convert", str(published), str(bundle), *size], check=True)  # noqa: S603
    os.environ["DEOCC_CACHE"] = str((work / "cache").resolve())

    from deocc_engines.bundle import Bundle
    from deocc_engines.compile.build import Built, CompileOptions, compile_bundle

    table = Table("call", "sm", "type", "MiB", "s")

    def on_event(built: Built) -> None:
        own = built.artefact
        seconds = "cached" if built.cached else f"{built.seconds:.1f}"
        table.add_row(own.call, own.sm, own.dtype, f"{built.size / 2**20:.0f}", seconds)

    options = CompileOptions("trt-rtx", tuple(sm or ("80", "86", "89", "120")), "f16", (batch,), CALLS)
    compile_bundle(Bundle.open(bundle), options, on_event)
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
