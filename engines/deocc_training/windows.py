"""Scenes seen through the windows that a completion uses: the examples that networks are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy.random import Generator

from deocc_engines.mask import bounding_box
from deocc_engines.prompt import Box
from deocc_engines.window import Window
from deocc_training.scenes import Scene

__all__ = ["GLOBAL_MARGIN", "WHITE", "View", "global_window", "local_window", "view", "whole_window"]

WHITE = 255.0
GLOBAL_MARGIN = 2.0  # side of the global window over the longer side of the modal box
# Windows are placed around boxes that err: training sees them displaced and resized by as much.
BOX_JITTER = 0.08


@dataclass(frozen=True, eq=False)
class View:
    """One scene in one window of s × s model pixels, values in [0, 1]."""

    image: Float32[np.ndarray, "s s 3"]
    modal: Float32[np.ndarray, "s s"]  # share of each pixel that belongs to the visible part
    target: Float32[np.ndarray, "s s 3"]  # the complete object on white
    alpha: Float32[np.ndarray, "s s"]  # of the complete object

    def flipped(self) -> View:
        """Mirrored left to right."""
        return View(
            *(np.ascontiguousarray(np.flip(a, axis=1)) for a in (self.image, self.modal, self.target, self.alpha))
        )

    def masked_image(self) -> Float32[np.ndarray, "s s 3"]:
        """The visible part on white: x∘m + 1∘(1−m)."""
        m = self.modal[..., None]
        return np.asarray(self.image * m + (1 - m), np.float32)


def view(scene: Scene, window: Window) -> View:
    """Cuts a scene's image and truth."""
    height, width = scene.size
    image = scene.image[:height, :width]
    modal = (scene.labels[:height, :width] == scene.target_label).astype(np.float32)
    alpha = scene.target[:height, :width, 3:].astype(np.float32) / 255
    on_white = scene.target[:height, :width, :3] * alpha + WHITE * (1 - alpha)
    return View(
        image=window.take(image, WHITE) / 255,
        modal=window.take(modal, 0.0),
        target=window.take(on_white, WHITE) / 255,
        alpha=window.take(alpha[..., 0], 0.0),
    )


def whole_window(scene: Scene, size: int) -> Window:
    """The whole scene."""
    height, width = scene.size
    return Window.whole(width, height, size)


def global_window(scene: Scene, size: int, rng: Generator | None = None) -> Window:
    """Around the visible part, wide enough for the complete object in 98 % of scenes; jittered if `rng` is given."""
    height, width = scene.size
    box = bounding_box(np.ascontiguousarray(scene.labels[:height, :width] == scene.target_label))
    return Window.around(_jittered(box, rng), width, height, size, GLOBAL_MARGIN)


def local_window(scene: Scene, size: int, rng: Generator | None = None) -> Window:
    """Around the complete object; displaced as a predicted box would be, if `rng` is given."""
    height, width = scene.size
    box = bounding_box(np.ascontiguousarray(scene.target[:height, :width, 3] > 127))
    return Window.around(_jittered(box, rng), width, height, size)


def _jittered(box: Box, rng: Generator | None) -> Box:
    if rng is None:
        return box
    jitter = rng.uniform(-BOX_JITTER, BOX_JITTER, 4) * max(box.x_max - box.x_min, box.y_max - box.y_min)
    return Box(*(float(value) for value in np.array([box.x_min, box.y_min, box.x_max, box.y_max]) + jitter))
