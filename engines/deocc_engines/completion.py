"""Options, events and results of a completion: plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from jaxtyping import Bool, UInt8

from deocc_engines.errors import InvalidOption, TooLarge
from deocc_engines.limits import Limits
from deocc_engines.mask import bounding_box
from deocc_engines.prompt import Box

__all__ = [
    "SEEDS",
    "Completion",
    "CompletionOptions",
    "Cost",
    "Event",
    "ModalMask",
    "Preset",
    "Preview",
    "Priority",
    "Progress",
    "Sample",
    "SampleReady",
    "Stage",
    "StageDone",
    "preset_of",
]

MAX_GUIDANCE = 20.0
SEEDS = 2**32


@dataclass(frozen=True)
class Preset:
    """What an engine takes for options that a request leaves open; an engine has several, by name."""

    steps: int
    guidance_image: float
    guidance_text: float
    local_strength: float
    draws: int = 1


@dataclass(frozen=True)
class Cost:
    """What a request takes of the denoiser."""

    rows: int  # forward passes of guidance and draws counted
    steps: int  # that come one after another, of each sample


def preset_of(presets: Mapping[str, Preset], name: str) -> Preset:
    """An engine's preset; the empty name means its first.

    Raises:
        InvalidOption: the engine has no such preset.
    """
    if name and name not in presets:
        raise InvalidOption(f"the engine's presets are {', '.join(presets)}", field="options.preset")
    return presets[name] if name else next(iter(presets.values()))


class Priority(Enum):
    """What a completion is due of the denoiser against others that are under way; see `StepBatcher`."""

    LOW = 0.25
    NORMAL = 1.0
    HIGH = 4.0

    @property
    def weight(self) -> float:
        """Shares."""
        return self.value


@dataclass(frozen=True)
class CompletionOptions:
    """What may be asked of a completion; None stands for the preset's value."""

    text: str = ""  # what the object is; empty: no text condition
    num_samples: int = 1
    preset: str = ""  # the name of one of the engine's; empty: its first
    seed: int = 0  # sample i is drawn with (seed + i) mod 2**32
    steps: int | None = None  # denoising steps of each of the two stages
    guidance_image: float | None = None  # s_img
    guidance_text: float | None = None  # s_txt; both 1: one forward pass a step
    local_strength: float | None = None  # in [0, 1]; 0 leaves the local stage out
    draws: int | None = None  # of which a sample is the mean
    keep_visible: bool = True  # keep the input's pixels where the object is visible
    preview_every: int = 0  # steps between previews; 0: none
    priority: Priority = Priority.NORMAL  # changes when samples come, never what they are

    def check(self, limits: Limits) -> None:
        """Raises InvalidOption or TooLarge unless every option is in range."""
        if len(self.text) > limits.max_text_characters:
            raise TooLarge(f"at most {limits.max_text_characters} characters are accepted", field="options.text")
        _check_count(self.num_samples, limits.max_samples, "options.num_samples")
        if self.steps is not None:
            _check_count(self.steps, limits.max_steps, "options.steps")
        if self.draws is not None:
            _check_count(self.draws, limits.max_draws, "options.draws")
        if not 0 <= self.seed < SEEDS:
            raise InvalidOption("the seed must be an unsigned 32-bit number", field="options.seed")
        for name, high in (("guidance_image", MAX_GUIDANCE), ("guidance_text", MAX_GUIDANCE), ("local_strength", 1.0)):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 <= value <= high):
                raise InvalidOption(f"must lie between 0 and {high:g}", field=f"options.{name}")
        if self.preview_every < 0:
            raise InvalidOption("must not be negative", field="preview_every")


def _check_count(value: int, limit: int, name: str) -> None:
    if value < 1:
        raise InvalidOption("must be at least 1", field=name)
    if value > limit:
        raise TooLarge(f"{value} is over the limit of {limit}", field=name)


@dataclass(frozen=True, eq=False)
class ModalMask:
    """The visible part of one object.

    Attributes:
        mask: [h, w], the size of the image.
        score: predicted IoU in [0, 1]; 1 for a mask that the caller gave.
        box: of the mask, half-open, in pixels of the image.
    """

    mask: Bool[np.ndarray, "h w"]
    score: float
    box: Box

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "h w"], score: float) -> ModalMask:
        """With its box; `mask` must not be empty."""
        return cls(mask, score, bounding_box(mask))


@dataclass(frozen=True, eq=False)
class Sample:
    """One completed object.

    Pixels are held for a region of the image only; outside it alpha is 0.

    Attributes:
        patch: RGBA, straight alpha, of the region whose top left corner is (left, top) in the image.
        amodal: alpha > .5 in the same region.
        image_size: (width, height) of the image.
        box: of the amodal mask, half-open, in pixels of the image.
        seed: completing again with this seed and one sample gives this sample.
        score: in [0, 1], without ground truth.
        occluded_fraction: |amodal − modal| / |amodal|.
        whole: probability that next to nothing is hidden, where the engine judges that.
    """

    patch: UInt8[np.ndarray, "h w 4"]
    amodal: Bool[np.ndarray, "h w"]
    left: int
    top: int
    image_size: tuple[int, int]
    box: Box
    seed: int
    score: float
    occluded_fraction: float
    whole: float | None = None

    def rgba(self) -> UInt8[np.ndarray, "H W 4"]:
        """The object on a transparent canvas of the image's size."""
        return self._on_canvas(self.patch)

    def amodal_mask(self) -> Bool[np.ndarray, "H W"]:
        """The complete shape, of the image's size."""
        return self._on_canvas(self.amodal)

    def cropped(self) -> UInt8[np.ndarray, "h w 4"]:
        """The object cropped to its amodal box."""
        x0, y0 = int(self.box.x_min) - self.left, int(self.box.y_min) - self.top
        x1, y1 = int(self.box.x_max) - self.left, int(self.box.y_max) - self.top
        return self.patch[y0:y1, x0:x1]

    def _on_canvas(self, region: np.ndarray) -> np.ndarray:
        width, height = self.image_size
        canvas = np.zeros((height, width, *region.shape[2:]), region.dtype)
        canvas[self.top : self.top + region.shape[0], self.left : self.left + region.shape[1]] = region
        return canvas


@dataclass(frozen=True, eq=False)
class Completion:
    """All samples of one request, best first.

    Attributes:
        already_whole: the object seems not to be occluded at all.
        rim: pixels; deeper than this inside the modal mask the RGB equals the input's exactly.
        seconds: by stage.
    """

    samples: tuple[Sample, ...]
    modal: ModalMask
    already_whole: bool
    rim: int
    seconds: dict[str, float] = field(default_factory=dict)


class Stage(Enum):
    """Where a completion stands."""

    SEGMENT = "segment"
    GLOBAL = "global"
    LOCAL = "local"


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` done in this stage of this sample; `fraction` of the whole request."""

    stage: Stage
    sample: int
    step: int
    steps: int
    fraction: float


@dataclass(frozen=True, eq=False)
class Preview:
    """A small RGBA picture of the current estimate; `box` is where it lies in the image."""

    sample: int
    rgba: UInt8[np.ndarray, "h w 4"]
    box: Box


@dataclass(frozen=True, eq=False)
class SampleReady:
    """One sample is finished."""

    index: int
    sample: Sample


@dataclass(frozen=True)
class StageDone:
    """One sample is through a stage; `began` and `ended` are seconds of `time.perf_counter`, waiting included."""

    stage: Stage
    sample: int
    began: float
    ended: float


Event = Progress | Preview | SampleReady | ModalMask | StageDone
