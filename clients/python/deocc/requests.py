"""Arguments in the caller's terms, made into the messages of the wire contract."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

from deocc.errors import InvalidOption, InvalidPrompt
from deocc.images import ImageLike, MaskLike, image_source, mask_png
from deocc.results import Box
from deocc.v1 import deocclusion_pb2 as v1

__all__ = [
    "BoxLike",
    "CompleteArguments",
    "PointLike",
    "PromptArguments",
    "complete_request",
    "segment_request",
    "stream_request",
]

PointLike: TypeAlias = Sequence[float]
"""(x, y), or (x, y, label) with label 1 for on the object and 0 for not on it."""

BoxLike: TypeAlias = Box | Sequence[float]
"""Half-open (x_min, y_min, x_max, y_max)."""


class PromptArguments(TypedDict, total=False):
    """What is meant in the image, in pixels of the upright image. A mask stands alone."""

    points: Sequence[PointLike] | None
    box: BoxLike | None
    mask: MaskLike | None


class CompleteArguments(PromptArguments, total=False):
    """What may be asked of a completion; what is left out or None is the preset's value."""

    text: str  # what the object is, in a few words
    preset: str  # one of the engine's; empty: its default
    num_samples: int | None
    seed: int | None  # sample i is drawn with (seed + i) mod 2**32; left out: the service draws one
    steps: int | None  # denoising steps of each of the two stages
    guidance_image: float | None
    guidance_text: float | None
    local_strength: float | None  # in [0, 1]; 0 leaves the local stage out
    draws: int | None  # of which each sample is the mean
    keep_visible: bool | None  # keep the input's pixels where the object is visible; True if left out
    output: Literal["full", "crop"]  # the size of the image, or the amodal box of each sample
    priority: Literal["low", "normal", "high"]  # a share of the service against others; changes when, never what


_OUTPUTS = {"full": v1.OUTPUT_FULL, "crop": v1.OUTPUT_CROP}
_PRIORITIES = {"low": v1.PRIORITY_LOW, "normal": v1.PRIORITY_NORMAL, "high": v1.PRIORITY_HIGH}


def segment_request(
    image: ImageLike,
    engine_id: str,
    *,
    points: Sequence[PointLike] | None = None,
    box: BoxLike | None = None,
    mask: MaskLike | None = None,
) -> v1.SegmentRequest:
    """Raises what `images` raises, and InvalidPrompt for what is no point, box or mask."""
    return v1.SegmentRequest(
        prompt=_prompt(points, box, mask),
        image=image_source(image),
        mask_encoding=v1.MASK_ENCODING_PNG,
        engine_id=engine_id,
    )


def complete_request(
    image: ImageLike,
    engine_id: str,
    *,
    points: Sequence[PointLike] | None = None,
    box: BoxLike | None = None,
    mask: MaskLike | None = None,
    text: str = "",
    preset: str = "",
    num_samples: int | None = None,
    seed: int | None = None,
    steps: int | None = None,
    guidance_image: float | None = None,
    guidance_text: float | None = None,
    local_strength: float | None = None,
    draws: int | None = None,
    keep_visible: bool | None = None,
    output: Literal["full", "crop"] = "full",
    priority: Literal["low", "normal", "high"] = "normal",
) -> v1.CompleteRequest:
    """Raises what `segment_request` raises, and InvalidOption for an option that the wire cannot carry."""
    if output not in _OUTPUTS:
        raise InvalidOption('must be "full" or "crop"', field="options.output")
    if priority not in _PRIORITIES:
        raise InvalidOption('must be "low", "normal" or "high"', field="options.priority")
    return v1.CompleteRequest(
        prompt=_prompt(points, box, mask),
        image=image_source(image),
        options=v1.CompleteOptions(
            text=text,
            preset=preset,
            num_samples=_unsigned(num_samples, "options.num_samples"),
            seed=_unsigned(seed, "options.seed"),
            steps=_unsigned(steps, "options.steps"),
            guidance_image=guidance_image,
            guidance_text=guidance_text,
            local_strength=local_strength,
            draws=_unsigned(draws, "options.draws"),
            keep_visible=keep_visible,
            output=_OUTPUTS[output],
            priority=_PRIORITIES[priority],
            mask_encoding=v1.MASK_ENCODING_PNG,
        ),
        engine_id=engine_id,
    )


def stream_request(request: v1.CompleteRequest, preview_every: int = 0) -> v1.CompleteStreamRequest:
    """The same completion, streamed."""
    return v1.CompleteStreamRequest(
        image=request.image,
        prompt=request.prompt,
        options=request.options,
        engine_id=request.engine_id,
        preview_every=_unsigned(preview_every, "preview_every") or 0,
    )


def _prompt(points: Sequence[PointLike] | None, box: BoxLike | None, mask: MaskLike | None) -> v1.Prompt:
    if not points and box is None and mask is None:  # found out here, before a photo is sent for nothing
        raise InvalidPrompt("give points, a box or a mask", field="prompt")
    return v1.Prompt(
        points=[_point(point, f"prompt.points[{index}]") for index, point in enumerate(points or ())],
        box=None if box is None else _box(box),
        mask=None if mask is None else v1.Mask(png=mask_png(mask)),
    )


def _point(point: PointLike, field: str) -> v1.Point:
    numbers = _numbers(point, (2, 3), "a point is (x, y) or (x, y, label)", field)
    label = numbers[2] if len(numbers) == 3 else 1.0
    if label not in (0.0, 1.0):
        raise InvalidPrompt("a label is 1 (on the object) or 0 (not on it)", field=f"{field}.label")
    kind = v1.POINT_LABEL_INCLUDE if label else v1.POINT_LABEL_EXCLUDE
    return v1.Point(x=numbers[0], y=numbers[1], label=kind)


def _box(box: BoxLike) -> v1.Box:
    corners = box.as_tuple() if isinstance(box, Box) else box
    x_min, y_min, x_max, y_max = _numbers(corners, (4,), "a box is (x_min, y_min, x_max, y_max)", "prompt.box")
    return v1.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def _numbers(values: Sequence[float], lengths: tuple[int, ...], what: str, field: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise InvalidPrompt(what, field=field) from error
    if len(numbers) not in lengths:
        raise InvalidPrompt(what, field=field)
    if not all(math.isfinite(number) for number in numbers):
        raise InvalidPrompt("coordinates must be finite numbers", field=field)
    return numbers


def _unsigned(value: int | None, field: str) -> int | None:
    if value is not None and not 0 <= value < 2**32:
        raise InvalidOption("must be an unsigned 32-bit number", field=field)
    return value
