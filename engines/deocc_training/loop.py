"""One training loop for every network: resumable, EMA, bf16 autocast where it is fast, stats.jsonl, sample sheets."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

__all__ = ["Figures", "LoopOptions", "Recipe", "load_ema", "save", "train"]

LONGEST_STEP = 60.0  # seconds
WARM_UP = 3  # steps that are run before a GPU records one
PRETRAINED = 0.25  # of the rate, at which what came trained learns
Network = TypeVar("Network", bound=nn.Module)
Figures: TypeAlias = dict[str, Tensor]  # read when they are logged, so that no step waits for them
Step: TypeAlias = Callable[..., Figures]  # of a batch: leaves the gradients behind


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
    pretrained: str = ""  # parameters whose names begin so came from elsewhere, and learn at PRETRAINED of the rate
    seed: int = 0
    device: str = "cpu"  # or "cuda"
    # If given, the run ends by the clock, too, and the rate falls by it instead of by `steps`. All time that `out` was
    # trained for counts, that of earlier runs as well.
    minutes: float | None = None
    threads: int = 2
    checkpoint_seconds: float = 180.0
    sheet_steps: int = 500


class Recipe(Protocol):
    """What is particular to one network."""

    @property
    def module(self) -> nn.Module:
        """Its parameters that require a gradient are trained."""

    def batch(self, rng: Generator, count: int) -> tuple[Tensor, ...]:
        """What a step learns from, drawn with `rng`: on the device, and always of the same shapes."""

    def loss(self, *batch: Tensor) -> tuple[Tensor, Figures]:
        """The loss of a batch, and figures for stats.jsonl. The work must not depend on values: a GPU replays it."""

    def sheet(self, module: nn.Module) -> np.ndarray:
        """A uint8 RGB picture [h, w, 3] of what `module` (the EMA) does on fixed held-out samples."""


def train(recipe: Recipe, options: LoopOptions) -> None:
    """Trains until `options.steps` are done or `options.minutes` are over; SIGTERM and SIGINT save and return.

    Where that is so from the beginning, everything stays as it is.
    Step k draws its batch with a generator seeded by (seed, k), so an interrupted run sees what an
    uninterrupted one would have seen.
    """
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if options.device != "cpu":
        torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    options.out.mkdir(parents=True, exist_ok=True)
    module = recipe.module.to(options.device)
    ema = copy.deepcopy(module).requires_grad_(False).eval()
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = _groups(module, options.pretrained)
    optimiser = torch.optim.AdamW(
        [{"params": parameters} for parameters in groups.values()],
        lr=options.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=options.weight_decay,
        fused=True,
    )
    first, warm, spent = _resume(options.out, module, ema, optimiser, options.device)
    if _over(first, sum(spent.values()), options):
        tqdm.write(f"nothing left to train in {options.out}: step {first}, {sum(spent.values()):.0f} s")
        return
    averaged = [value for value in ema.state_dict().values() if value.is_floating_point()]
    current = [value for value in module.state_dict().values() if value.is_floating_point()]
    device = "cpu" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    run: Step = partial(_step, recipe, optimiser, options.device)
    drawing: Callable[[], AbstractContextManager[None]] = nullcontext
    if options.device != "cpu":
        run, drawing = _Replayed(run), _Beside()
    saved = before = time.monotonic()
    figures: list[Figures] = []
    bar = tqdm(range(first, options.steps), initial=first, total=options.steps, mininterval=5.0)
    with _signals() as stopping:
        for step in bar:
            seconds = sum(spent.values())
            rate = options.learning_rate * _schedule(step, step - warm, seconds, options)
            for group, share in zip(optimiser.param_groups, groups, strict=True):
                group["lr"] = rate * share
            torch.manual_seed(options.seed * 1_000_003 + step)
            with drawing():
                batch = recipe.batch(np.random.default_rng([options.seed, step]), options.batch)
            figure = run(*batch)
            norm = nn.utils.clip_grad_norm_(trained, options.clip)
            # One bad batch must not end a run of hours: the optimiser skips it.
            optimiser.grad_scale, optimiser.found_inf = None, (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
            optimiser.step()
            torch._foreach_lerp_(averaged, current, 1 - min(options.ema, (step + 1) / (step + 10)))
            figures.append({**figure, "norm": norm})
            now = time.monotonic()
            took = min(now - before, LONGEST_STEP)  # a machine that slept did not train
            spent[device] = spent.get(device, 0.0) + took
            seconds += took
            before = now
            if (step + 1) % 50 == 0:
                means = _log(options.out, step + 1, seconds, rate, figures)
                bar.set_postfix(loss=f"{means['loss']:.4f}", refresh=False)
                figures.clear()
            last = stopping() or _over(step + 1, seconds, options)
            if (step + 1) % options.sheet_steps == 0 or last:
                _draw(recipe, ema, options, step + 1)
            if last or now - saved > options.checkpoint_seconds:
                save(options.out, step + 1, spent, module, ema, optimiser)
                saved = now
            if last:
                break


def _groups(module: nn.Module, pretrained: str) -> dict[float, list[nn.Parameter]]:
    """The parameters that are trained, by the share of the rate at which they learn."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            share = PRETRAINED if pretrained and name.startswith(pretrained) else 1.0
            groups.setdefault(share, []).append(parameter)
    return groups


def _step(recipe: Recipe, optimiser: torch.optim.Optimizer, device: str, *batch: Tensor) -> Figures:
    """Forward and backward pass."""
    with _attention(device):
        with _autocast(device):
            loss, figures = recipe.loss(*batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    return {**figures, "loss": loss.detach()}


class _Replayed:
    """A step recorded as a CUDA graph: these networks are small, and launching their kernels one by one takes longer
    than running them."""

    def __init__(self, run: Step) -> None:
        self._run = run
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: tuple[Tensor, ...] = ()
        self._figures: Figures = {}

    def __call__(self, *batch: Tensor) -> Figures:
        if self._graph is None:
            self._record(batch)
        assert self._graph is not None
        for own, given in zip(self._batch, batch, strict=True):
            given.record_stream(torch.cuda.current_stream())
            own.copy_(given)
        self._graph.replay()
        return dict(zip(self._figures, torch.stack(list(self._figures.values())).unbind(), strict=True))

    def _record(self, batch: tuple[Tensor, ...]) -> None:
        self._batch = tuple(given.clone() for given in batch)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._run(*self._batch)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._figures = self._run(*self._batch)


class _Beside:
    """Batches are drawn on a stream of their own: the host waits for its copies, and not for the step before."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)


def _autocast(device: str) -> torch.autocast:
    # A processor without bfloat16 only imitates it, and takes ten times as long as with float32.
    fit = device != "cpu" or any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)
    return torch.autocast(device, torch.bfloat16, enabled=fit)


def _attention(device: str) -> AbstractContextManager[None]:
    # On a CPU the fused attention's backward pass takes a fifth of a denoiser's step, plain products a fiftieth.
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    return context


def _over(step: int, seconds: float, options: LoopOptions) -> bool:
    return step >= options.steps or seconds >= _limit(options)


def _limit(options: LoopOptions) -> float:
    return float("inf") if options.minutes is None else 60 * options.minutes


def load_ema(out: Path, module: Network) -> Network:
    """Loads the averaged weights of a run into `module`, ready for inference."""
    module.load_state_dict(torch.load(out / "ema.pt", map_location="cpu", weights_only=True)["ema"])
    return module.eval().requires_grad_(False)


def _schedule(step: int, updates: int, seconds: float, options: LoopOptions) -> float:
    rise = min(1.0, (updates + 1) / options.warmup)
    left = 1 - step / options.steps if options.minutes is None else 1 - seconds / _limit(options)
    return rise * min(1.0, max(0.0, left) / max(options.decay, 1 / options.steps))


def _resume(
    out: Path, module: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer, device: str
) -> tuple[int, int, dict[str, float]]:
    """The step to go on with, the step from which the optimiser's moments were gathered, and seconds by device."""
    path = out / "state.pt"
    if not path.exists():
        return 0, 0, {}
    state = torch.load(path, map_location=device, weights_only=True)
    module.load_state_dict(state["module"])
    ema.load_state_dict(torch.load(out / "ema.pt", map_location=device, weights_only=True)["ema"])
    step, spent = int(state["step"]), dict(state["seconds"])
    if "optimiser" not in state:
        return step, step, spent
    optimiser.load_state_dict(state["optimiser"])
    return step, max(0, step - _updates(optimiser)), spent


def _updates(optimiser: torch.optim.Optimizer) -> int:
    return max((int(moments["step"]) for moments in optimiser.state.values()), default=0)


def save(
    out: Path,
    step: int,
    seconds: Mapping[str, float],
    module: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer | None = None,
) -> None:
    """Writes what `train` resumes from; without an optimiser its moments start anew there.

    Args:
        seconds: trained so far, by the device's name: "cpu", or what CUDA calls it ("cuda" in older runs).
    """
    progress = {"step": step, "seconds": dict(seconds)}
    moments = {"optimiser": optimiser.state_dict()} if optimiser else {}
    for name, value in (
        ("ema.pt", {"ema": ema.state_dict(), **progress}),
        ("state.pt", {"module": module.state_dict(), **moments, **progress}),
    ):
        torch.save(value, out / (name + ".new"))
        os.replace(out / (name + ".new"), out / name)


def _log(out: Path, step: int, seconds: float, rate: float, figures: list[Figures]) -> dict[str, float]:
    names = sorted({name for figure in figures for name in figure})
    means = {name: float(np.mean([float(f[name]) for f in figures if name in f])) for name in names}
    with (out / "stats.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "seconds": round(seconds, 1), "rate": rate, **means}) + "\n")
    return means


def _draw(recipe: Recipe, ema: nn.Module, options: LoopOptions, step: int) -> None:
    sheets = options.out / "sheets"
    sheets.mkdir(exist_ok=True)
    with torch.no_grad(), _autocast(options.device):
        picture = recipe.sheet(ema)
    Image.fromarray(picture).save(sheets / f"{step:07d}.png")


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT came; afterwards they do again what they did before."""
    received: list[int] = []
    kinds = signal.SIGTERM, signal.SIGINT
    before = [signal.signal(kind, lambda number, _frame: received.append(number)) for kind in kinds]
    try:
        yield lambda: bool(received)
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
