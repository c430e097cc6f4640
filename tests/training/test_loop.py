"""The training loop: an interrupted run is the uninterrupted one."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.random import Generator
from torch import Tensor, nn

from deocc_training.loop import LoopOptions, load_ema, save, train


class Line:
    """Learns y = 3x − 1."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.module = nn.Linear(1, 1)

    def batch(self, rng: Generator, count: int) -> tuple[Tensor, ...]:
        return (torch.from_numpy(rng.standard_normal((count, 1), np.float32)),)

    def loss(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        (x,) = batch
        return (self.module(x).float() - (3 * x - 1)).square().mean(), {"seen": x.sum()}

    def sheet(self, module: nn.Module) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def options(tmp_path: Path) -> LoopOptions:
    return LoopOptions(tmp_path / "run", 100, batch=8, learning_rate=0.05, warmup=10, decay=0.0, sheet_steps=50)


def test_resuming_changes_nothing(options: LoopOptions, tmp_path: Path) -> None:
    train(Line(), options)
    whole = load_ema(options.out, nn.Linear(1, 1)).state_dict()
    parts = replace(options, out=tmp_path / "parts")
    train(Line(), replace(parts, steps=37))
    train(Line(), parts)
    for name, value in load_ema(parts.out, nn.Linear(1, 1)).state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=0)


def test_without_moments_it_warms_up_anew(options: LoopOptions) -> None:
    module = Line().module
    options.out.mkdir()
    save(options.out, 50, {"cpu": 7.0}, module, module)
    train(Line(), replace(options, steps=55))
    train(Line(), replace(options, warmup=100))  # interrupted while warming up, it goes on doing so
    line = json.loads((options.out / "stats.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 100
    assert line["seconds"] >= 7
    assert line["rate"] == pytest.approx(0.05 * 50 / 100)


class Ended(Line):
    """Is told to end at its first step."""

    def batch(self, rng: Generator, count: int) -> tuple[Tensor, ...]:
        signal.raise_signal(signal.SIGTERM)
        return super().batch(rng, count)


def test_a_signal_ends_the_training_after_the_step_and_nothing_else(options: LoopOptions) -> None:
    before = [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)]
    train(Ended(), options)
    assert torch.load(options.out / "state.pt", weights_only=True)["step"] == 1
    assert [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)] == before


def test_what_is_over_stays_as_it_is(options: LoopOptions) -> None:
    module = Line().module
    options.out.mkdir()
    save(options.out, 50, {"cpu": 40.0, "cuda": 20.0}, module, module)
    saved = (options.out / "state.pt").read_bytes()
    train(Line(), replace(options, minutes=1.0))
    train(Line(), replace(options, steps=50))
    assert (options.out / "state.pt").read_bytes() == saved
    train(Line(), replace(options, steps=51, minutes=2.0))
    assert (options.out / "state.pt").read_bytes() != saved


def test_it_learns_and_leaves_figures_and_sheets(options: LoopOptions) -> None:
    train(Line(), replace(options, steps=400))
    lines = [json.loads(line) for line in (options.out / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(50, 401, 50))
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"]
    assert len(list((options.out / "sheets").iterdir())) == 8
