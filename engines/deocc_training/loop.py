"""One training loop for every network: resumable, EMA, bf16 autocast, stats.jsonl, sample sheets."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

__all__ = ["LoopOptions", "Recipe", "load_ema", "save", "train"]

LONGEST_STEP = 60.0  # seconds


@dataclass(frozen=True)
class LoopOptions:
    """How long and how a network is trained."""

    out: Path  # state.pt, ema.pt, stats.jsonl and sheets/ go here; the same command resumes
    steps: int  # in all; may be changed when resuming
    batch: int = 16
    learning_rate: float = 3e-4
    warmup: int = 200  # steps of linear rise, again when the optimiser's moments start anew
    decay: float = 0.25  # last share of the steps, over which the rate falls to zero
    ema: float = 0.999
    clip: float = 1.0  # gradient norm
    weight_decay: float = 0.01
    seed: int = 0
    threads: int = 2
    checkpoint_seconds: float = 180.0
    sheet_steps: int = 500


class Recipe(Protocol):
    """What is particular to one network."""

    @property
    def module(self) -> nn.Module:
        """Its parameters that require a gradient are trained."""

    def loss(self, rng: Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a fresh batch drawn with `rng`, and figures for stats.jsonl."""

    def sheet(self, module: nn.Module) -> np.ndarray:
        """A uint8 RGB picture [h, w, 3] of what `module` (the EMA) does on fixed held-out samples."""


def train(recipe: Recipe, options: LoopOptions) -> None:
    """Trains until `options.steps`; SIGTERM and SIGINT save and return.

    Step k draws its batch with a generator seeded by (seed, k), so an interrupted run sees what an
    uninterrupted one would have seen.
    """
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    module = recipe.module
    ema = copy.deepcopy(module).requires_grad_(False)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained, lr=options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay, fused=True
    )
    first, warm, seconds = _resume(options.out, module, ema, optimiser)
    stopping = _until_signalled()
    saved = before = time.monotonic()
    figures: list[dict[str, float]] = []
    bar = tqdm(range(first, options.steps), initial=first, total=options.steps, mininterval=5.0)
    step = first
    for step in bar:
        rate = options.learning_rate * _schedule(step, step - warm, options)
        for group in optimiser.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([options.seed, step])
        torch.manual_seed(options.seed * 1_000_003 + step)
        # On a CPU the fused attention's backward pass takes a fifth of a denoiser's step, plain products a fiftieth.
        with sdpa_kernel(SDPBackend.MATH):
            with torch.autocast("cpu", torch.bfloat16):
                loss, figure = recipe.loss(rng, options.batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(trained, options.clip)
        if torch.isfinite(norm):  # one bad batch must not end a run of hours
            optimiser.step()
        _update(ema, module, min(options.ema, (step + 1) / (step + 10)))
        figures.append({**figure, "loss": loss.item(), "norm": norm.item()})
        now = time.monotonic()
        seconds += min(now - before, LONGEST_STEP)  # a machine that slept did not train
        before = now
        if (step + 1) % 50 == 0:
            _log(options.out, step + 1, seconds, rate, figures)
            bar.set_postfix(loss=f"{np.mean([f['loss'] for f in figures]):.4f}", refresh=False)
            figures.clear()
        last = step + 1 == options.steps or stopping()
        if (step + 1) % options.sheet_steps == 0 or last:
            _draw(recipe, ema, options.out, step + 1)
        if last or now - saved > options.checkpoint_seconds:
            save(options.out, step + 1, seconds, module, ema, optimiser)
            saved = now
        if last:
            break


def load_ema(out: Path, module: nn.Module) -> nn.Module:
    """Loads the averaged weights of a run into `module`, ready for inference."""
    module.load_state_dict(torch.load(out / "ema.pt", weights_only=True)["ema"])
    return module.eval().requires_grad_(False)


def _schedule(step: int, updates: int, options: LoopOptions) -> float:
    rise = min(1.0, (updates + 1) / options.warmup)
    fall = min(1.0, (options.steps - step) / max(1.0, options.decay * options.steps))
    return rise * fall


@torch.no_grad()
def _update(ema: nn.Module, module: nn.Module, decay: float) -> None:
    averaged, current = list(ema.state_dict().values()), list(module.state_dict().values())
    floats = [(a, c) for a, c in zip(averaged, current, strict=True) if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [c for _, c in floats], 1 - decay)


def _resume(out: Path, module: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, int, float]:
    """The step to go on with, the step from which the optimiser's moments were gathered, and the seconds so far."""
    path = out / "state.pt"
    if not path.exists():
        return 0, 0, 0.0
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["module"])
    ema.load_state_dict(torch.load(out / "ema.pt", weights_only=True)["ema"])
    step, seconds = int(state["step"]), float(state["seconds"])
    if "optimiser" not in state:
        return step, step, seconds
    optimiser.load_state_dict(state["optimiser"])
    return step, max(0, step - _updates(optimiser)), seconds


def _updates(optimiser: torch.optim.Optimizer) -> int:
    return max((int(moments["step"]) for moments in optimiser.state.values()), default=0)


def save(
    out: Path,
    step: int,
    seconds: float,
    module: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer | None = None,
) -> None:
    """Writes what `train` resumes from; without an optimiser its moments start anew there."""
    progress = {"step": step, "seconds": seconds}
    moments = {"optimiser": optimiser.state_dict()} if optimiser else {}
    for name, value in (
        ("ema.pt", {"ema": ema.state_dict(), **progress}),
        ("state.pt", {"module": module.state_dict(), **moments, **progress}),
    ):
        torch.save(value, out / (name + ".new"))
        os.replace(out / (name + ".new"), out / name)


def _log(out: Path, step: int, seconds: float, rate: float, figures: list[dict[str, float]]) -> None:
    names = sorted({name for figure in figures for name in figure})
    means = {name: float(np.mean([f[name] for f in figures if name in f])) for name in names}
    with (out / "stats.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "seconds": round(seconds, 1), "rate": rate, **means}) + "\n")


def _draw(recipe: Recipe, ema: nn.Module, out: Path, step: int) -> None:
    sheets = out / "sheets"
    sheets.mkdir(exist_ok=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        picture = recipe.sheet(ema)
    Image.fromarray(picture).save(sheets / f"{step:07d}.png")


def _until_signalled() -> Callable[[], bool]:
    received: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _frame: received.append(number))
    return lambda: bool(received)
