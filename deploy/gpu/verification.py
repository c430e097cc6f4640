"""What `deploy/gpu/verify` does once everything is installed: one stage after another, each a command of its own.

A stage that fails stops only those that need what it makes: the report says which, with the last lines of what it said,
and is written anew after every stage. Nothing is called verified unless a GPU of this machine ran it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from deploy.gpu.report import write_report

ROOT = Path(__file__).parent.parent.parent
EMBEDDED = ROOT / "engines/deocc_engines/bundles/deocc-mini"
DEOCC = (sys.executable, "-c", "from deocc.cli import main; main()")
# What TensorRT-RTX compiles for; other cards take the data-centre TensorRT.
RTX_CARDS = ("75", "80", "86", "89", "120", "121")
WEIGHTS = "full size with random weights; the published ones, whose licences are shown; or deocc-mini's"
RUNTIMES = ("tensorrt", "cuda", "cuda-compiled")
REHEARSED = ("openvino", "torch")
PACKAGES = ("torch", "onnxruntime", "tensorrt-rtx-cu12", "tensorrt", "openvino", "diffusers", "transformers")
QUERY = "name,driver_version,memory.total,compute_cap"


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        gives: whether it ends with a JSON document on standard output.
        needs: stages without which it cannot be.
    """

    name: str
    command: tuple[str, ...]
    gives: bool = True
    needs: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What became of it."""

    name: str
    command: str
    state: Literal["done", "failed", "skipped"]
    seconds: float
    result: Any = None
    said: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.state == "done"


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
    machine = {
        "card": card,
        "host": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": dict(_packages()),
        "rehearsal": card is None,
    }
    outcomes: list[Outcome] = []
    for outcome in run_stages(stages, options.limit):
        outcomes.append(outcome)
        write_report(options.out, machine, vars(options), outcomes)
    raise SystemExit(0 if all(outcome.ok for outcome in outcomes) else 1)


def run_stages(stages: Sequence[Stage], limit: float | None = None) -> Iterator[Outcome]:
    """What becomes of each, one after another.

    Args:
        limit: seconds for all of them; the stage that is at work then is ended, and those after it are skipped.
    """
    end = time.perf_counter() + limit if limit is not None else float("inf")
    states: dict[str, str] = {}
    for stage in stages:
        lacking = [name for name in stage.needs if states[name] != "done"]
        left = end - time.perf_counter()
        if lacking:
            outcome = _skipped(stage, f"{lacking[0]!r}, which it needs: {states[lacking[0]]}")
        elif left <= 0:
            outcome = _skipped(stage, f"the {limit:g} s for all stages were over")
        else:
            outcome = _run(stage, left)
        states[stage.name] = outcome.state
        yield outcome


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"


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
    add("--runtimes", help=f"of {', '.join(RUNTIMES)}; with --cpu of {', '.join(REHEARSED)}; all if left out")
    add("--limit", type=float, help="seconds for all stages; what does not fit is skipped, and the report says so")
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
    made = list(_bundle(options, bundle))
    yield from made
    engine = tuple(stage.name for stage in made[-1:])
    engines = (*DEOCC, "engines")
    say = ("--json",)
    plans = ("--target", target, "--sm", sm, "--dtype", options.dtype, "--batch", options.batch)
    compiled = Stage(f"compile {target} for sm{sm}", (*engines, "compile", bundle, *plans, *say), needs=engine)
    known = RUNTIMES if card else REHEARSED
    runtimes = tuple(options.runtimes.split(",")) if options.runtimes else known
    if not set(runtimes) <= set(known):
        raise SystemExit(f"--runtimes takes of {', '.join(known)}")
    if card is None or "tensorrt" in runtimes:
        yield compiled
    if "openvino" in runtimes:
        yield Stage("compile openvino", (*engines, "compile", bundle, "--target", "openvino", *say), needs=engine)
    load = ("--in-flight", options.load, "--seconds", str(options.load_seconds), "--steps", str(options.steps))
    served = Stage("serve under load", (sys.executable, "-m", "deploy.gpu.load", bundle, *load), needs=engine)
    late = [runtime for runtime in runtimes if runtime == "cuda-compiled"]  # takes longest, and is not what is served
    for runtime in (runtime for runtime in runtimes if runtime not in late):
        needs = (compiled.name,) if runtime == "tensorrt" else engine
        yield from _compared(options, bundle, runtime, needs)
    yield served
    for runtime in late:
        yield from _compared(options, bundle, runtime, engine)


def _compared(options: argparse.Namespace, bundle: str, runtime: str, needs: tuple[str, ...]) -> Iterator[Stage]:
    """The stages of one runtime."""
    engines = (*DEOCC, "engines")
    own = ("--runtime", runtime, "--json")
    rounds = ("--rounds", str(options.rounds))
    yield Stage(f"parity {runtime}", (*engines, "verify", bundle, *own), needs=needs)
    yield Stage(f"bench {runtime}", (*engines, "bench", bundle, *own, *rounds, "--batch", options.batch), needs=needs)
    images = ("--samples", options.images, "--steps", str(options.steps), *rounds)
    yield Stage(f"images {runtime}", (sys.executable, "-m", "deploy.gpu.images", bundle, runtime, *images), needs=needs)


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
        written: tuple[str, ...] = ()
        if not Path(published).is_dir():
            yield Stage("write random weights", (*full, "write", published), gives=False)
            written = ("write random weights",)
        yield Stage("convert them", (*full, "convert", published, bundle), gives=False, needs=written)


def _skipped(stage: Stage, why: str) -> Outcome:
    print(f"== {stage.name}: skipped: {why}", file=sys.stderr, flush=True)  # noqa: T201 - progress
    return Outcome(stage.name, shlex.join(_shown(stage.command)), "skipped", 0.0, said=[why])


def _run(stage: Stage, limit: float) -> Outcome:
    print(f"== {stage.name}", file=sys.stderr, flush=True)  # noqa: T201 - progress
    started = time.perf_counter()
    said: list[str] = []
    with tempfile.TemporaryFile("w+") as out:  # not a pipe, which nobody reads while the other is read
        process = subprocess.Popen(  # noqa: S603 - commands of our own
            stage.command, stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
        )
        assert process.stderr is not None
        # Its own processes hold the pipe too: all of them end, or the pipe does not.
        alarm = threading.Timer(min(limit, threading.TIMEOUT_MAX), os.killpg, (process.pid, signal.SIGKILL))
        alarm.start()
        try:
            with process.stderr:
                for line in process.stderr:
                    sys.stderr.write(line)
                    said.append(line.rstrip())
            ok = process.wait() == 0
        except BaseException:  # Ctrl+C does not reach a session of its own
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            alarm.cancel()
        out.seek(0)
        printed = out.read()
    seconds = time.perf_counter() - started
    if seconds >= limit:
        said.append(f"ended after {seconds:.0f} s: the time for all stages was over")
    result = None
    if stage.gives and printed.strip():
        try:
            result = json.loads(printed)
        except ValueError:
            ok = False
    return Outcome(
        stage.name, shlex.join(_shown(stage.command)), "done" if ok else "failed", seconds, result, said[-20:]
    )


def _shown(command: Sequence[str]) -> Sequence[str]:
    return ("deocc", *command[len(DEOCC) :]) if tuple(command[: len(DEOCC)]) == DEOCC else command


if __name__ == "__main__":
    main()
