"""``deocc engines compile``, ``verify`` and ``bench``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deocc.cli.console import console, print_json
from deocc.cli.exits import Exit
from deocc.cli.options import Json
from deocc.local import provided

__all__ = ["bench", "compile_engine", "verify"]

Name = Annotated[str | None, typer.Argument(metavar="[NAME_OR_PATH]", help="The default one if left out.")]


class Target(StrEnum):
    """What to compile for."""

    OPENVINO = "openvino"
    ONNX = "onnx"
    TRT_RTX = "trt-rtx"
    TRT = "trt"


class Dtype(StrEnum):
    """What to compute in; of OpenVINO's files, what weights are kept in."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"


class RuntimeChoice(StrEnum):
    """What to run on."""

    AUTO = "auto"
    OPENVINO = "openvino"
    ONNX = "onnx"
    TORCH = "torch"
    TENSORRT = "tensorrt"
    CUDA = "cuda"
    CUDA_COMPILED = "cuda-compiled"


Runs = Annotated[RuntimeChoice, typer.Option("--runtime", help="auto: what would be served on this machine.")]


def compile_engine(
    target: Annotated[Target, typer.Option(help="`trt` is unverified: no GPU has run it yet.")],
    engine: Name = None,
    sm: Annotated[
        list[str] | None, typer.Option(help="Compute capability without a dot, e.g. 89; may be repeated.")
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="f16 if left out; f32 for onnx.")] = None,
    batch: Annotated[str | None, typer.Option(help="Rows of the static profiles: 1,2,4,8 if left out.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="One call, e.g. denoise; may be repeated.")] = None,
    into: Annotated[Path | None, typer.Option(help="Compile a copy of the bundle in this new folder.")] = None,
    json: Json = False,
) -> None:
    """Build every network of a bundle for one target, and write it into the bundle.

    What can be run here is compared with the reference at once; plans for a GPU are compared there, by `verify`.
    """
    screen = console()
    done: dict[str, Any] = provided("compile")(
        engine,
        target=target.value,
        sms=sm or (),
        dtype=dtype.value if dtype else None,
        batches=_numbers(batch, "--batch"),
        calls=only or (),
        into=into,
        say=lambda words: screen.print(words, markup=False),
    )
    if json:
        print_json(done)
    parity = done["parity"]
    if parity is None:
        screen.print(f"{target.value} is not compared yet: 'deocc engines verify' on the card does", markup=False)
    elif not parity["passed"]:
        screen.print("parity failed: this engine is not served", style="red")
        raise typer.Exit(Exit.ENGINE)


def verify(
    engine: Name = None,
    hashes_only: Annotated[
        bool, typer.Option("--hashes-only", help="Compare files with the manifest, no more.")
    ] = False,
    image: Annotated[bool, typer.Option(help="Compare the final image too.")] = True,
    runtime: Runs = RuntimeChoice.AUTO,
    json: Json = False,
) -> None:
    """Check a bundle: its files are unaltered, and what is served gives the reference's numbers.

    An engine that fails is not served.
    """
    screen = console()
    checked: dict[str, Any] = provided("verify")(engine)
    screen.print(f"{checked['engine_id']} at {checked['path']} is complete and unaltered", markup=False)
    if not hashes_only:
        checked = provided("parity")(
            engine, runtime=runtime.value, image=image, say=lambda words: screen.print(words, markup=False)
        )
        screen.print(f"{checked['identity']}: {'passed' if checked['passed'] else 'FAILED'}", markup=False)
    if json:
        print_json(checked)
    if not checked.get("passed", True):
        raise typer.Exit(Exit.ENGINE)


def bench(
    engine: Name = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of all contenders in turn, after a warm-up.")] = 5,
    batch: Annotated[str, typer.Option(help="Rows of the denoiser.")] = "1,2,4,8",
    runtime: Runs = RuntimeChoice.AUTO,
    json: Json = False,
) -> None:
    """Measure an engine on this machine, beside plain torch and the machine's own peak."""
    screen = console()
    measured: dict[str, Any] = provided("bench")(
        engine,
        runtime=runtime.value,
        rounds=rounds,
        batches=_numbers(batch, "--batch"),
        say=lambda words: screen.print(words, markup=False),
    )
    if json:
        print_json(measured)
        return
    table = Table("call", "runtime", "rows", "in flight", "ms", "GFLOP/s", "of peak", box=None)
    for t in measured["timings"]:
        share = "" if t["peak_share"] is None else f"{t['peak_share']:.0%}"
        cells = (t["call"], t["runtime"], str(t["rows"]), str(t["in_flight"]), f"{t['seconds'] * 1e3:.1f}")
        table.add_row(*cells, f"{t['gflops']:.0f}", share)
    out = Console(soft_wrap=True)
    out.print(table)
    peak = ", ".join(f"{value:.0f} with {flying} in flight" for flying, value in measured["peak"].items())
    out.print(f"peak: {peak} (GFLOP/s, product of matrices)", highlight=False)
    memory = measured["memory"]
    device = f", {memory['device'] / 2**30:.2f} GiB of the card" if memory["device"] else ""
    out.print(f"memory: {memory['host'] / 2**30:.2f} GiB{device}", highlight=False)
    out.print(f"a step: {measured['speedup']:.2f} times as fast as torch float32", highlight=False)
    if len(measured["peak"]) > 1:
        out.print(f"in the best company, by row: {measured['speedup_in_company']:.2f} times", highlight=False)


def _numbers(text: str | None, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise typer.BadParameter("give whole numbers with commas between them", param_hint=option) from None
