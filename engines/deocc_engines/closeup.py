"""An answer of SAM seen close up: where SAM looks once more, and what the mask refiner is shown.

A click wants one object, which may be a small part of the image; SAM's logits are a grid over all of it. The window
follows the answer (as RITM's and FocalClick's zoom-in does; Sofiiuk et al. 2021, Chen et al. 2022), so that small
objects are answered at a scale like large ones.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from deocc_engines.mask import bounding_box, clean
from deocc_engines.prediction import WHITE
from deocc_engines.prompt import Box, Point, Prompt
from deocc_engines.window import Window

__all__ = ["FARTHEST_LOGIT", "CloseUp", "close_up", "extent_of", "inside", "reduced"]

MARGIN = 1.75  # side of the window over the longer side of the answer: it may have missed parts
RADIUS = 3  # of a click, pixels of the model
FARTHEST_LOGIT = 16.0  # of an answer; where it says nothing, on the far side


@dataclass(frozen=True, eq=False)
class CloseUp:
    """A window and what is seen in it."""

    window: Window
    answer: Float32[np.ndarray, "1 s s"]  # the probability of belonging to the visible part
    photo: Float32[np.ndarray, "3 s s"]  # in [−1, 1]
    clicks: Float32[np.ndarray, "2 s s"]  # 1 around those that include and around those that exclude


def reduced(
    pixels: UInt8[np.ndarray, "h w 3"], prompt: Prompt, longest: int
) -> tuple[UInt8[np.ndarray, "H W 3"], Prompt]:
    """A photo and a prompt at a size of at most so many pixels along the longer side."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return pixels, prompt
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    across, down = size[0] / width, size[1] / height
    points = tuple(Point(point.x * across, point.y * down, point.include) for point in prompt.points)
    box = prompt.box and Box(
        prompt.box.x_min * across, prompt.box.y_min * down, prompt.box.x_max * across, prompt.box.y_max * down
    )
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small, replace(prompt, points=points, box=box)


def inside(prompt: Prompt, left: int, top: int, right: int, bottom: int) -> Prompt:
    """A prompt as it reads in a part of the image; what lies outside moves to its edge."""

    def moved(x: float, y: float) -> tuple[float, float]:
        return min(max(x - left, 0.0), float(right - left)), min(max(y - top, 0.0), float(bottom - top))

    points = tuple(Point(*moved(point.x, point.y), point.include) for point in prompt.points)
    box = prompt.box and Box(*moved(prompt.box.x_min, prompt.box.y_min), *moved(prompt.box.x_max, prompt.box.y_max))
    return replace(prompt, points=points, box=box)


def close_up(
    pixels: UInt8[np.ndarray, "h w 3"], logits: Float32[np.ndarray, "l l"], prompt: Prompt, size: int
) -> CloseUp:
    """What is to be seen of the answer to a prompt.

    Args:
        pixels: of the photo that the prompt's coordinates belong to.
        logits: of the image, padded at the bottom or right to a square.
        size: of the window, pixels of the model.
    """
    height, width = pixels.shape[:2]
    seen = Window.whole(width, height, len(logits))
    window = Window.around(extent_of(logits, prompt, width, height), width, height, size, MARGIN)
    near = window.take_from(seen, logits, -FARTHEST_LOGIT)
    photo = (window.take(pixels, WHITE) * (2 / WHITE) - 1).transpose(2, 0, 1)
    clicks = np.zeros((2, size, size), np.float32)
    for point in prompt.points:
        x, y = ((v - start) * size / window.side for v, start in ((point.x, window.left), (point.y, window.top)))
        cv2.circle(clicks[int(not point.include)], (int(x), int(y)), RADIUS, 1.0, -1)
    answer = 1 / (1 + np.exp(-near.clip(-FARTHEST_LOGIT, FARTHEST_LOGIT)))
    return CloseUp(window, answer[None].astype(np.float32), np.ascontiguousarray(photo, np.float32), clicks)


def extent_of(logits: Float32[np.ndarray, "l l"], prompt: Prompt, width: int, height: int) -> Box:
    """The box of the answer and of what the prompt includes; the whole image where there is neither."""
    seen = Window.whole(width, height, len(logits))
    scale = seen.side / seen.size
    corners = [(point.x, point.y) for point in prompt.points if point.include]
    boxes = [] if prompt.box is None else [prompt.box]
    rows, columns = (min(round(extent / scale), seen.size) for extent in (height, width))
    found = np.ascontiguousarray(logits[:rows, :columns] > 0)
    if found.any():
        x_min, y_min, x_max, y_max = (scale * end for end in dataclasses.astuple(bounding_box(clean(found))))
        boxes.append(Box(x_min, y_min, min(x_max, width), min(y_max, height)))
    corners += [corner for box in boxes for corner in ((box.x_min, box.y_min), (box.x_max, box.y_max))]
    if not corners:
        return Box(0, 0, width, height)
    xs, ys = zip(*corners, strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))
