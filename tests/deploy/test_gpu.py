"""The verification on a card: which stages there are, and what becomes of them where something is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.gpu.report import write_report
from deploy.gpu.verification import Outcome, Stage, run_stages

ROOT = Path(__file__).parents[2]
VERIFICATION = (sys.executable, "-m", "deploy.gpu.verification")


def python(name: str, code: str, *needs: str) -> Stage:
    return Stage(name, (sys.executable, "-c", code), needs=needs)


def states(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.name: outcome.state for outcome in outcomes}


def test_only_what_needs_a_failed_stage_is_skipped() -> None:
    stages = [
        python("compile", "import sys; print('tensorrt is not installed', file=sys.stderr); sys.exit(5)"),
        python("parity tensorrt", "print('{}')", "compile"),
        python("images tensorrt", "print('{}')", "parity tensorrt"),
        python("parity cuda", "print('{\"passed\": true}')"),
    ]
    outcomes = list(run_stages(stages))
    assert list(states(outcomes).values()) == ["failed", "skipped", "skipped", "done"]
    assert outcomes[0].said == ["tensorrt is not installed"]
    assert outcomes[1].said == ["'compile', which it needs: failed"]
    assert outcomes[3].result == {"passed": True}


def test_the_time_limit_ends_a_stage_with_its_children_and_skips_the_rest() -> None:
    hangs = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    started = time.perf_counter()
    outcomes = list(run_stages([python("hangs", hangs), python("parity cuda", "print('{}')")], limit=1.0))
    assert time.perf_counter() - started < 30
    assert states(outcomes) == {"hangs": "failed", "parity cuda": "skipped"}
    assert "the time for all stages was over" in outcomes[0].said[-1]


def test_an_interrupt_ends_the_stage_at_work(tmp_path: Path) -> None:
    own = tmp_path / "pid"
    interrupts = "import os, pathlib, signal, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))"
    interrupts += "; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run_stages([Stage("interrupts", (sys.executable, "-c", interrupts, str(own)))]))
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(own.read_text()), 0)


def test_the_report_tells_a_failure_from_what_was_skipped_for_it(tmp_path: Path) -> None:
    outcomes = [
        Outcome("compile trt for sm90", "deocc engines compile", "failed", 1.0, said=["tensorrt is not installed"]),
        Outcome("parity tensorrt", "deocc engines verify", "skipped", 0.0, said=["'compile trt for sm90' failed"]),
    ]
    card = {"name": "a card", "compute_cap": "9.0", "driver_version": "1", "memory.total": "80 GiB"}
    machine = {"card": card, "host": "h", "cores": 2, "python": "3.12", "packages": {"torch": "2"}, "rehearsal": False}
    write_report(tmp_path, machine, {}, outcomes)
    shown = (tmp_path / "report.md").read_text()
    assert "| compile trt for sm90 | **failed** | 1.0 |" in shown
    assert "| parity tensorrt | skipped: 'compile trt for sm90' failed | 0.0 |" in shown
    assert "tensorrt is not installed" in shown
    stages = json.loads((tmp_path / "report.json").read_text())["stages"]
    assert [stage["state"] for stage in stages] == ["failed", "skipped"]


@pytest.mark.parametrize("weights", ["random", "mini"])
def test_a_dry_run_prints_every_stage(weights: str, tmp_path: Path) -> None:
    command = [*VERIFICATION, "--dry-run", "--cpu", "--weights", weights, "--out", str(tmp_path)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = [line[2:] for line in printed.splitlines() if line.startswith("# ")]
    assert named[-7:] == [
        *(f"{what} {runtime}" for runtime in ("openvino", "torch") for what in ("parity", "bench", "images")),
        "serve under load",
    ]
    assert "compile trt-rtx for sm89" in named
    assert list(tmp_path.iterdir()) == []
