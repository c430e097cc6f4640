"""What the caller means in the image: points, a box, or a mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from deocc_engines.errors import InvalidPrompt, TooLarge
from deocc_engines.limits import Limits

__all__ = ["Box", "Point", "Prompt"]


@dataclass(frozen=True)
class Point:
    """xy in pixels of the upright image, origin at the top left corner of the top left pixel."""

    x: float
    y: float
    include: bool = True  # False: the point does not lie on the object


@dataclass(frozen=True)
class Box:
    """Half-open, xy in pixels of the upright image."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, eq=False)
class Prompt:
    """Points and box may be combined; a mask stands alone.

    Attributes:
        mask: [h, w] of the image's size. `complete` takes it as the modal mask itself, `segment` refines it.
    """

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask: Bool[np.ndarray, "h w"] | None = None

    def check(self, width: int, height: int, limits: Limits) -> None:
        """Raises InvalidPrompt or TooLarge unless the prompt fits an image of this size."""
        if self.mask is None and self.box is None and not self.points:
            raise InvalidPrompt("give points, a box or a mask", field="prompt")
        if len(self.points) > limits.max_points:
            raise TooLarge(
                f"{len(self.points)} points; at most {limits.max_points} are accepted", field="prompt.points"
            )
        for index, point in enumerate(self.points):
            _check_coordinate(point.x, width, f"prompt.points[{index}].x", closed=False)
            _check_coordinate(point.y, height, f"prompt.points[{index}].y", closed=False)
        if self.points and self.box is None and not any(point.include for point in self.points):
            raise InvalidPrompt("at least one point must lie on the object", field="prompt.points")
        if self.box is not None:
            self._check_box(self.box, width, height)
        if self.mask is not None:
            self._check_mask(self.mask, width, height)

    def _check_box(self, box: Box, width: int, height: int) -> None:
        for name, limit in (("x_min", width), ("y_min", height), ("x_max", width), ("y_max", height)):
            _check_coordinate(getattr(box, name), limit, f"prompt.box.{name}", closed=True)
        if box.x_max - box.x_min < 1 or box.y_max - box.y_min < 1:
            raise InvalidPrompt("the box is empty: each side must be at least one pixel", field="prompt.box")

    def _check_mask(self, mask: Bool[np.ndarray, "h w"], width: int, height: int) -> None:
        if self.points or self.box is not None:
            raise InvalidPrompt("a mask stands alone; leave out points and box", field="prompt.mask")
        if mask.shape != (height, width):
            raise InvalidPrompt(
                f"the mask is {mask.shape[1]}x{mask.shape[0]}, the image {width}x{height}", field="prompt.mask"
            )
        if not mask.any():
            raise InvalidPrompt("the mask is empty", field="prompt.mask")


def _check_coordinate(value: float, limit: int, field: str, *, closed: bool) -> None:
    if not math.isfinite(value):
        raise InvalidPrompt("coordinates must be finite numbers", field=field)
    if value < 0 or value > limit or (value == limit and not closed):
        raise InvalidPrompt(f"{value:g} lies outside the image, whose extent is {limit}", field=field)
