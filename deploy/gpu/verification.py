"""What `deploy/gpu/verify` does once everything is installed: one stage after another, each a command of its own.

A stage that fails does not stop the others: the report says which, with the last lines of what it said. Nothing is
called verified unless a GPU of this machine ran it.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.gpu.report import write_report

ROOT = Path(__file__).parent.parent.parent
EMBEDDED = ROOT / "engines/deocc_engines/bundles/deocc-mini"
DEOCC = (sys.executable, "-c", "from deocc.cli import main; main()")
# What TensorRT-RTX compiles for; other cards take the data-centre TensorRT.
RTX_CARDS = ("75", "80", "86", "89", "120", "121")
WEIGHTS = "full size with random weights; the published ones, whose licences are shown; or deocc-mini's"
QUERY = "name,driver_version,memory.total,compute_cap"


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        gives: whether it ends with a JSON document on standard output.
    """

    name: str
    command: tuple[str, ...]
    gives: bool = True


@dataclass
class Outcome:
    """What became of it."""

    name: str
    command: str
    ok: bool
    seconds: float
    result: Any = None
    said: list[str] = field(default_factory=list)


def main() -> None:
    """Runs all stages and writes the report."""
    options = _options()
    card = _card()
    if card is None and not (options.cpu or options.dry_run):
        raise SystemExit("nvidia-smi finds no card; --cpu rehearses the stages without one, and verifies nothing")
    if options.cpu:
        card = None
    stages = list(_stages(options, card))
    if options.dry_run:
        for stage in stages:
            print(f"# {stage.name}\n{shlex.join(stage.command)}")  # noqa: T201 - what was asked for
        return
    options.out.mkdir(parents=True, exist_ok=True)
    outcomes = [_run(stage) for stage in stages]
    machine = {
        "card": card,
        "host": platform.platform(),
        "python": platform.python_version(),
        "rehearsal": card is None,
    }
    write_report(options.out, machine, vars(options), outcomes)
    raise SystemExit(0 if all(outcome.ok for outcome in outcomes) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/gpu/verify", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--weights", choices=("random", "pull", "mini"), default="random", help=WEIGHTS)
    add("--accept-licence", action="store_true", help="of the published weights")
    add("--target", choices=("trt-rtx", "trt"), help="by the card if left out")
    add("--sm", help="compute capability to compile for; this card's if left out")
    add("--dtype", choices=("f16", "bf16"), default="f16")
    add("--batch", default="1,2,4,8")
    add("--images", default="1,4,8", help="samples of one request")
    add("--steps", type=int, default=20, help="of each stage, where whole images are timed")
    add("--rounds", type=int, default=5)
    add("--load", default="1,4,8", help="requests in flight")
    add("--load-seconds", type=float, default=20.0, help="for each of them")
    add("--out", type=Path, default=Path("out/gpu"), help="for the report and the bundle")
    add("--cpu", action="store_true", help="rehearse without a GPU: what that cannot show stays unverified")
    add("--dry-run", action="store_true", help="print the commands")
    return parser.parse_args()


def _card() -> dict[str, str] | None:
    if shutil.which("nvidia-smi") is None:
        return None
    asked = subprocess.run(  # noqa: S603
        ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode or not asked.stdout.strip():
        return None
    values = (part.strip() for part in asked.stdout.splitlines()[0].split(","))
    return dict(zip(QUERY.split(","), values, strict=True))


def _stages(options: argparse.Namespace, card: dict[str, str] | None) -> Iterator[Stage]:
    sm = options.sm or (card["compute_cap"].replace(".", "") if card else "89")
    target = options.target or ("trt-rtx" if sm in RTX_CARDS else "trt")
    bundle = str(options.out / "engine")
    yield from _bundle(options, bundle)
    engines = (*DEOCC, "engines")
    say = ("--json",)
    plans = ("--target", target, "--sm", sm, "--dtype", options.dtype, "--batch", options.batch)
    yield Stage(f"compile {target} for sm{sm}", (*engines, "compile", bundle, *plans, *say))
    runtimes = ("tensorrt", "cuda", "cuda-compiled") if card else ("openvino", "torch")
    if card is None:
        yield Stage("compile openvino", (*engines, "compile", bundle, "--target", "openvino", *say))
    for runtime in runtimes:
        yield Stage(f"parity {runtime}", (*engines, "verify", bundle, "--runtime", runtime, *say))
    for runtime in runtimes:
        bench = ("--runtime", runtime, "--rounds", str(options.rounds), "--batch", options.batch)
        yield Stage(f"bench {runtime}", (*engines, "bench", bundle, *bench, *say))
    images = ("--samples", options.images, "--steps", str(options.steps), "--rounds", str(options.rounds))
    for runtime in runtimes:
        yield Stage(f"images {runtime}", (sys.executable, "-m", "deploy.gpu.images", bundle, runtime, *images))
    load = ("--in-flight", options.load, "--seconds", str(options.load_seconds), "--steps", str(options.steps))
    yield Stage("serve under load", (sys.executable, "-m", "deploy.gpu.load", bundle, *load))


def _bundle(options: argparse.Namespace, bundle: str) -> Iterator[Stage]:
    if Path(bundle).is_dir():
        return
    if options.weights == "mini":
        copy = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])"
        yield Stage("copy deocc-mini", (sys.executable, "-c", copy, str(EMBEDDED), bundle), gives=False)
    elif options.weights == "pull":
        accept = ("--accept-licence",) if options.accept_licence else ()
        yield Stage("pull", (*DEOCC, "engines", "pull", "deocc-anything", "--out", bundle, *accept), gives=False)
    else:
        full, published = (sys.executable, "-m", "benchmarks.full_size"), str(options.out / "published")
        if not Path(published).is_dir():
            yield Stage("write random weights", (*full, "write", published), gives=False)
        yield Stage("convert them", (*full, "convert", published, bundle), gives=False)


def _run(stage: Stage) -> Outcome:
    print(f"== {stage.name}", file=sys.stderr, flush=True)  # noqa: T201 - progress
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:  # not a pipe, which nobody reads while the other is read
        process = subprocess.Popen(  # noqa: S603 - commands of our own
            stage.command, stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            sys.stderr.write(line)
            said.append(line.rstrip())
        ok = process.wait() == 0
        out.seek(0)
        printed = out.read()
    outcome = Outcome(stage.name, shlex.join(_shown(stage.command)), ok, time.perf_counter() - started, said=said[-20:])
    if stage.gives and printed.strip():
        try:
            outcome.result = json.loads(printed)
        except ValueError:
            outcome.ok = False
    return outcome


def _shown(command: Sequence[str]) -> Sequence[str]:
    return ("deocc", *command[len(DEOCC) :]) if tuple(command[: len(DEOCC)]) == DEOCC else command


if __name__ == "__main__":
    main()
