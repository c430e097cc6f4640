"""DeoccAnything: image, modal mask and words in; the complete object out. Global window first, then local."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from deocc_engines.batcher import StepBatcher
from deocc_engines.completion import (
    SEEDS,
    Completion,
    CompletionOptions,
    Cost,
    Event,
    ModalMask,
    Preset,
    Sample,
    SampleReady,
    Stage,
    preset_of,
)
from deocc_engines.guidance import Guidance
from deocc_engines.jobs import Run
from deocc_engines.latents import CompleterRuntime, Latents, View
from deocc_engines.mask import bounding_box, clean
from deocc_engines.paste import rim_of
from deocc_engines.prediction import Prediction
from deocc_engines.progress import Teller
from deocc_engines.ranking import ranked
from deocc_engines.sampler import Schedule, noise_for, planned_steps, sample
from deocc_engines.text import Tokenizer
from deocc_engines.window import Window

__all__ = ["Completer", "CompleterRuntime", "CompleterSettings"]


@dataclass(frozen=True)
class CompleterSettings:
    """What a bundle says of its completer."""

    window: int  # pixels along each side of the model's input
    factor: int  # pixels along each side of one latent
    schedule: Schedule
    presets: Mapping[str, Preset]  # the first one is the default
    # Side of the global window over the longer side of the modal box, so that a small model need not learn every scale.
    # None: the whole image, as published.
    global_margin: float | None = None
    mask_resize: Literal["nearest", "area"] = "nearest"  # of the modal mask to latent size; as in training
    whole_below: float = 0.05  # a smaller hidden share than this is within the model's error: the object is whole
    whole_above: float = 0.5  # the refiner's probability from which it is, where there is a refiner
    # A network that answers a mirrored photo with another shape is not sure of it: with this, odd seeds see the photo
    # left to right, so that several samples differ by what the network does not know, and not by their noise alone.
    mirror_odd_seeds: bool = False


@dataclass(frozen=True, eq=False)
class _Job:
    """One request, ready to be denoised."""

    image: UInt8[np.ndarray, "h w 3"]
    modal: Bool[np.ndarray, "h w"]
    options: CompletionOptions
    guidance: Guidance
    settled: Preset  # the options, with the preset's values where the request leaves them open
    text: Float[Tensor, "1 n d"]
    teller: Teller

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image."""
        return self.image.shape[1], self.image.shape[0]


class Completer:
    """Safe to call from several threads at once.

    Attributes:
        batcher: where the samples of all requests are denoised.
    """

    def __init__(
        self,
        runtime: CompleterRuntime,
        tokenizer: Tokenizer,
        settings: CompleterSettings,
        *,
        sizes: Sequence[int] = (1,),
        workers: int = 1,
    ) -> None:
        self._runtime, self._tokenizer, self.settings = runtime, tokenizer, settings
        self.batcher = StepBatcher(runtime.denoise, sizes=sizes, workers=workers)
        self._latents = Latents(runtime, settings.factor, settings.mask_resize)
        self._no_text = self._encode_text("")

    def preset(self, name: str) -> Preset:
        """Raises InvalidOption unless the engine has it; the empty name means the default."""
        return preset_of(self.settings.presets, name)

    def complete(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        modal: ModalMask,
        options: CompletionOptions,
        *,
        on_event: Callable[[Event], None],
        stop: Callable[[], None],
    ) -> Completion:
        """Completes one object `options.num_samples` times, best first.

        Args:
            on_event: called at every step, preview and finished sample, from other threads, one call at a time.
            stop: asked before every step; raises to end the work.

        Raises:
            EngineFailure: the networks gave numbers that are not finite.
        """
        started = time.perf_counter()
        modal = ModalMask.of(clean(modal.mask), modal.score)
        job = self._job(image, modal, options, on_event)
        window, seeds = self._global_window(job), [(options.seed + i) % SEEDS for i in range(options.num_samples)]
        wide = {
            mirrored: self._latents.view(image, modal.mask, window, mirrored=mirrored)
            for mirrored in sorted({self._mirrored(seed) for seed in seeds})
        }
        runs = [self._sample(job, wide[self._mirrored(seed)], index, seed) for index, seed in enumerate(seeds)]
        each = self.cost(options).rows / options.num_samples
        samples = self.batcher.run(runs, each, stop=stop, weight=options.priority.weight)
        return Completion(
            samples=ranked(samples, modal.mask),
            modal=modal,
            already_whole=self._is_whole(samples),
            rim=rim_of(*job.size),
            seconds={"complete": time.perf_counter() - started},
        )

    def cost(self, options: CompletionOptions) -> Cost:
        """What a request takes."""
        settled = self._settled(options)
        stages = [(_steps(settled, stage), _draws(settled, stage)) for stage in (Stage.GLOBAL, Stage.LOCAL)]
        rows = sum(steps * draws for steps, draws in stages) * _guidance(settled, options).passes
        return Cost(rows=options.num_samples * rows, steps=sum(steps for steps, _ in stages))

    def _settled(self, options: CompletionOptions) -> Preset:
        preset = self.preset(options.preset)
        given = {field.name: getattr(options, field.name) for field in fields(Preset)}
        return replace(preset, **{name: value for name, value in given.items() if value is not None})

    def _job(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        modal: ModalMask,
        options: CompletionOptions,
        on_event: Callable[[Event], None],
    ) -> _Job:
        settled = self._settled(options)
        return _Job(
            image=image,
            modal=modal.mask,
            options=options,
            guidance=_guidance(settled, options),
            settled=settled,
            text=self._encode_text(options.text) if options.text else self._no_text,
            teller=Teller(on_event, options.num_samples * self.cost(options).steps),
        )

    def _is_whole(self, samples: Sequence[Sample]) -> bool:
        if self._runtime.refine is None:
            return float(np.median([sample.occluded_fraction for sample in samples])) < self.settings.whole_below
        return float(np.median([sample.whole for sample in samples])) > self.settings.whole_above

    def _mirrored(self, seed: int) -> bool:
        return self.settings.mirror_odd_seeds and seed % 2 == 1

    def _sample(self, job: _Job, wide: View, index: int, seed: int) -> Run[Sample]:
        began = time.perf_counter()
        prediction = yield from self._global(job, wide, index, seed)
        began = job.teller.through(Stage.GLOBAL, index, began)
        if job.settled.local_strength > 0:
            prediction = yield from self._local(job, prediction, index, seed)
            job.teller.through(Stage.LOCAL, index, began)
        sample = prediction.sample(job.image, job.modal, seed, keep_visible=job.options.keep_visible)
        job.teller.tell(SampleReady(index, sample))
        return sample

    def _global_window(self, job: _Job) -> Window:
        size, margin = self.settings.window, self.settings.global_margin
        if margin is None:
            return Window.whole(*job.size, size)
        return Window.around(bounding_box(job.modal), *job.size, size, margin)

    def _global(self, job: _Job, view: View, index: int, seed: int) -> Run[Prediction]:
        """From pure noise, the object and what surrounds it in view."""
        z_0 = yield from self._denoise(job, view, index, seed, Stage.GLOBAL)
        return self._latents.decode(view, z_0)

    def _local(self, job: _Job, found: Prediction, index: int, seed: int) -> Run[Prediction]:
        """From the noised global result, a square around the object in view."""
        window = Window.around(found.amodal_box(job.modal), *job.size, self.settings.window)
        view = self._latents.view(job.image, job.modal, window, mirrored=self._mirrored(seed))
        start = self._latents.encode_in(view, found)
        z_0 = yield from self._denoise(job, view, index, seed, Stage.LOCAL, start)
        return self._latents.decode(view, z_0)

    def _denoise(
        self,
        job: _Job,
        view: View,
        index: int,
        seed: int,
        stage: Stage,
        start: Tensor | None = None,
    ) -> Run[Tensor]:
        """So many latents, [draws, c, z, z]."""

        def on_step(done: int, planned: int, estimate: Tensor) -> None:
            job.teller.stepped(stage, index, done, planned)
            every = job.options.preview_every
            if every and done % every == 0 and done < planned:
                job.teller.tell(self._latents.decode(view, estimate[:1]).preview(job.modal, index))

        z = self.settings.window // self.settings.factor
        shape, draws = (1, (view.condition.shape[1] - 1) // 2, z, z), _draws(job.settled, stage)
        noise = [noise_for(seed, f"{stage.value}/{draw}" if draw else stage.value, shape) for draw in range(draws)]
        return (
            yield from sample(
                self.settings.schedule,
                job.settled.steps,
                torch.cat(noise),
                view.condition,
                job.text,
                guidance=job.guidance,
                no_text=self._no_text,
                start=start,
                strength=job.settled.local_strength,
                on_step=on_step,
            )
        )

    def _encode_text(self, text: str) -> Tensor:
        return self._runtime.encode_text(torch.from_numpy(self._tokenizer(text))[None])


def _guidance(settled: Preset, options: CompletionOptions) -> Guidance:
    return Guidance(settled.guidance_image, settled.guidance_text if options.text else settled.guidance_image)


def _steps(settled: Preset, stage: Stage) -> int:
    """Of one sample; 0 without a local stage."""
    if stage is Stage.GLOBAL:
        return settled.steps
    return planned_steps(settled.steps, settled.local_strength) if settled.local_strength > 0 else 0


def _draws(settled: Preset, stage: Stage) -> int:
    """Several in the last stage only."""
    return settled.draws if stage is Stage.LOCAL or settled.local_strength == 0 else 1
