"""A tiny engine with real shapes behind the real `Deoccluder`: deterministic, and as slow as a test wants it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deocc_engines.batcher import StepBatcher
from deocc_engines.completion import (
    Completion,
    CompletionOptions,
    Cost,
    Event,
    ModalMask,
    Preset,
    Preview,
    Progress,
    Sample,
    SampleReady,
    Stage,
    StageDone,
)
from deocc_engines.errors import InvalidOption
from deocc_engines.guidance import Rows
from deocc_engines.jobs import Run
from deocc_engines.mask import bounding_box
from deocc_engines.prompt import Prompt

ENGINE_ID = "deocc-fake@0123456789abcdef"
STEPS = 4
PRESETS = {"fast": Preset(STEPS, 1.0, 1.0, 0.5), "slow": Preset(2 * STEPS, 2.0, 1.0, 0.5)}
# Texts that make the fake behave: the engine sees text only as a condition, so nothing else is disturbed.
CRASH = "crash, please"
RADIUS = 8


@dataclass(frozen=True)
class FakeInfo:
    """The fields of EngineInfo."""

    engine_id: str = ENGINE_ID
    name: str = "deocc-fake"
    licence: str = "Apache-2.0"
    commercial_use: bool = True
    runtimes: tuple[tuple[str, str], ...] = ()
    window: int = 64
    presets: dict[str, Preset] = field(default_factory=lambda: dict(PRESETS))
    path: str = "/secret/path"


@dataclass(frozen=True)
class FakeEmbedding:
    width: int
    height: int
    nbytes: int = 1


class FakeSegmenter:
    """A square around each included point, or the box, or the mask again; smaller ones follow with lower scores.

    Counts the images that it embeds in a file, one byte each.
    """

    def __init__(self, embedded_file: Path) -> None:
        self._embedded_file = embedded_file

    def embed(self, pixels: np.ndarray) -> FakeEmbedding:
        with self._embedded_file.open("ab") as file:
            file.write(b".")
        return FakeEmbedding(pixels.shape[1], pixels.shape[0])

    def segment_all(
        self, embedding: FakeEmbedding, pixels: np.ndarray, prompts: Sequence[Prompt]
    ) -> tuple[tuple[ModalMask, ...], ...]:
        return tuple(self._candidates(embedding, prompt) for prompt in prompts)

    def _candidates(self, embedding: FakeEmbedding, prompt: Prompt) -> tuple[ModalMask, ...]:
        if prompt.mask is not None:
            return (ModalMask.of(prompt.mask, 0.9),)
        return tuple(ModalMask.of(self._mask(embedding, prompt, RADIUS // n), 0.9 / n) for n in (1, 2))

    def _mask(self, embedding: FakeEmbedding, prompt: Prompt, radius: int) -> np.ndarray:
        mask = np.zeros((embedding.height, embedding.width), bool)
        for point in prompt.points:
            x, y = int(point.x), int(point.y)
            mask[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius] = point.include
        if prompt.box is not None:
            b = prompt.box
            mask[int(b.y_min) : int(np.ceil(b.y_max)), int(b.x_min) : int(np.ceil(b.x_max))] = True
        return mask


class FakeCompleter:
    """Its samples are runs of a real step batcher. Counts its steps in a file, one byte each, so that a test can
    follow them across processes.

    Args:
        seconds: per step; a text of the form "sleep .2" overrides it.
    """

    def __init__(self, seconds: float, steps_file: Path, slots: int) -> None:
        self._seconds, self._steps_file = seconds, steps_file
        self.batcher = StepBatcher(self._denoise, workers=slots)

    def preset(self, name: str) -> Preset:
        if name and name not in PRESETS:
            raise InvalidOption("no such preset", field="options.preset")
        return PRESETS[name or "fast"]

    def cost(self, options: CompletionOptions) -> Cost:
        steps = options.steps or self.preset(options.preset).steps
        return Cost(options.num_samples * steps, steps)

    def complete(
        self,
        pixels: np.ndarray,
        modal: ModalMask,
        options: CompletionOptions,
        *,
        on_event: Callable[[Event], None],
        stop: Callable[[], None],
    ) -> Completion:
        started = time.perf_counter()
        runs = [self._run(pixels, modal, options, index, on_event) for index in range(options.num_samples)]
        steps = self.cost(options).steps
        samples = self.batcher.run(runs, steps, stop=stop, weight=options.priority.weight)
        best_first = tuple(sorted(samples, key=lambda sample: -sample.score))
        seconds = {"complete": time.perf_counter() - started}
        return Completion(best_first, modal, already_whole=False, rim=2, seconds=seconds)

    def _denoise(self, z_t: Tensor, t: Tensor, condition: Tensor, text: Tensor) -> Tensor:
        self._count()
        time.sleep(float(t[0]))
        return z_t

    def _run(
        self,
        pixels: np.ndarray,
        modal: ModalMask,
        options: CompletionOptions,
        index: int,
        on_event: Callable[[Event], None],
    ) -> Run[Sample]:
        if options.text == CRASH:
            raise RuntimeError("a failure at /secret/path")
        seconds = float(options.text.removeprefix("sleep ")) if options.text.startswith("sleep ") else self._seconds
        steps = self.cost(options).steps
        sample = self._sample(pixels, modal, (options.seed + index) % 2**32)
        began = time.perf_counter()
        row = torch.tensor([seconds])
        for step in range(steps):
            yield Rows(row, row, row, row)
            fraction = (index + (step + 1) / steps) / options.num_samples
            on_event(Progress(Stage.GLOBAL, index, step + 1, steps, fraction))
            if options.preview_every and (step + 1) % options.preview_every == 0:
                on_event(Preview(index, sample.cropped(), sample.box))
            if step + 1 == steps // 2:
                on_event(StageDone(Stage.GLOBAL, index, began, began := time.perf_counter()))
        on_event(StageDone(Stage.LOCAL, index, began, time.perf_counter()))
        on_event(SampleReady(index, sample))
        return sample

    def _sample(self, pixels: np.ndarray, modal: ModalMask, seed: int) -> Sample:
        digest = hashlib.sha256(pixels.tobytes() + modal.mask.tobytes() + str(modal.score).encode()).digest()
        random = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
        amodal = np.roll(modal.mask, 3, axis=1) | modal.mask
        box = bounding_box(amodal)
        x0, y0, x1, y1 = int(box.x_min), int(box.y_min), int(box.x_max), int(box.y_max)
        patch = random.integers(0, 256, (y1 - y0, x1 - x0, 4), np.uint8)
        patch[..., 3] = 255 * amodal[y0:y1, x0:x1]
        hidden = 1 - modal.mask.sum() / amodal.sum()
        size = (pixels.shape[1], pixels.shape[0])
        return Sample(patch, amodal[y0:y1, x0:x1], x0, y0, size, box, seed, float(random.random()), float(hidden))

    def _count(self) -> None:
        with self._steps_file.open("ab") as file:
            file.write(b".")


@dataclass(frozen=True)
class FakeLoad:
    """A picklable loader: what a host is given in place of the bundle's."""

    steps_file: Path
    seconds: float = 0.0
    slots: int = 2

    def __call__(self) -> tuple[Any, Any]:
        from deocc_engines.deoccluder import Deoccluder
        from deocc_engines.embeddings import EmbeddingCache

        deoccluder = Deoccluder(
            segmenter=FakeSegmenter(self._embedded_file),  # type: ignore[arg-type]
            completer=FakeCompleter(self.seconds, self.steps_file, self.slots),  # type: ignore[arg-type]
            embeddings=EmbeddingCache(),
        )
        return deoccluder, FakeInfo()

    @property
    def steps(self) -> int:
        """Steps taken so far, in all processes."""
        return os.path.getsize(self.steps_file) if self.steps_file.exists() else 0

    @property
    def embedded(self) -> int:
        """Images embedded so far, in all processes."""
        return os.path.getsize(self._embedded_file) if self._embedded_file.exists() else 0

    @property
    def _embedded_file(self) -> Path:
        return self.steps_file.with_suffix(".embedded")
