"""Windows: square regions of the image seen by a model of fixed size. Global-to-local is two of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from deocc_engines.prompt import Box

__all__ = ["Window"]

LOCAL_MARGIN = 1.2  # side of the local crop over the longer side of the amodal box
LOCAL_MIN_SHARE = 0.25  # of the image's long side; the paper's 256 of 1024


@dataclass(frozen=True)
class Window:
    """An immutable map between a square of image pixels and a square of model pixels.

    The square may reach beyond the image. A point (x, y) of the image lies at
    ``((x - left) * size / side, (y - top) * size / side)`` in the model's frame.

    Attributes:
        left, top: of the square, pixels of the image.
        side: of the square, pixels of the image.
        size: of the model's input, pixels of the model.
    """

    left: int
    top: int
    side: int
    size: int

    @classmethod
    def whole(cls, width: int, height: int, size: int) -> Window:
        """The global window: the whole image, padded at the bottom or right to a square."""
        return cls(0, 0, max(width, height), size)

    @classmethod
    def around(cls, box: Box, width: int, height: int, size: int, margin: float = LOCAL_MARGIN) -> Window:
        """A square around `box`, `margin` times its longer side, moved inside the image where it fits."""
        longest = max(width, height)
        side = margin * max(box.x_max - box.x_min, box.y_max - box.y_min)
        side = max(round(min(max(side, LOCAL_MIN_SHARE * longest), longest)), 1)
        left = _inside(round((box.x_min + box.x_max - side) / 2), side, width)
        top = _inside(round((box.y_min + box.y_max - side) / 2), side, height)
        return cls(left, top, side, size)

    def take(self, image: np.ndarray, fill: float) -> Float32[np.ndarray, "s s *c"]:
        """The model's view of an image [h, w] or [h, w, c]: float32 in the image's own value range.

        Where the square reaches beyond the image the value is `fill`.
        """
        height, width = image.shape[:2]
        square = np.full((self.side, self.side, *image.shape[2:]), fill, np.float32)
        y0, y1 = max(self.top, 0), min(self.top + self.side, height)
        x0, x1 = max(self.left, 0), min(self.left + self.side, width)
        if y0 < y1 and x0 < x1:
            square[y0 - self.top : y1 - self.top, x0 - self.left : x1 - self.left] = image[y0:y1, x0:x1]
        return resize(square, self.size, self.size)

    def take_from(
        self, other: Window, patch: Float32[np.ndarray, "z z *c"], fill: float
    ) -> Float32[np.ndarray, "s s *c"]:
        """This window's view of a patch seen through another window, without a detour over the image's pixels."""
        scale = other.size / other.side * self.side / self.size  # other's model pixels per model pixel of this one
        shift = np.array([self.left - other.left, self.top - other.top]) * other.size / other.side
        # Pixel centres lie at half-integers: x' + .5 = scale·(x + .5) + shift.
        offset = 0.5 * scale - 0.5 + shift
        matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
        seen = cv2.warpAffine(
            patch,
            matrix,
            (self.size, self.size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(fill,) * 4,
        )
        return np.asarray(seen)

    def region(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The part of the square inside an image of this size: (left, top, right, bottom), half-open."""
        return (
            max(self.left, 0),
            max(self.top, 0),
            min(self.left + self.side, width),
            min(self.top + self.side, height),
        )

    def put(self, patch: Float32[np.ndarray, "s s *c"], width: int, height: int) -> Float32[np.ndarray, "h w *c"]:
        """A model-sized patch at the image's resolution, cut to `region(width, height)`."""
        left, top, right, bottom = self.region(width, height)
        square = resize(np.asarray(patch, np.float32), self.side, self.side)
        return square[top - self.top : bottom - self.top, left - self.left : right - self.left]


def _inside(start: int, side: int, extent: int) -> int:
    if side >= extent:  # it cannot fit: the far end is padded, as training pads
        return 0
    return min(max(start, 0), extent - side)


def resize(image: Float32[np.ndarray, "h w *c"], height: int, width: int) -> Float32[np.ndarray, "H W *c"]:
    """Antialiased when shrinking, bilinear when enlarging."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def to_uint8(image: Float[np.ndarray, "*s"]) -> UInt8[np.ndarray, "*s"]:
    """Values in [0, 255], rounded."""
    return np.asarray(np.clip(np.rint(image), 0, 255), np.uint8)
