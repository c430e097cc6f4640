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

__all__ = ["WHITE", "View", "global_window", "local_window", "view"]

WHITE = 255.0
# The local window is placed around a *predicted* box: training sees it displaced and resized by as much as that errs.
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


def global_window(scene: Scene, size: int) -> Window:
    """The whole scene."""
    height, width = scene.size
    return Window.whole(width, height, size)


def local_window(scene: Scene, size: int, rng: Generator | None = None) -> Window:
    """Around the complete object; displaced as a predicted box would be, if `rng` is given."""
    height, width = scene.size
    box = bounding_box(np.ascontiguousarray(scene.target[:height, :width, 3] > 127))
    if rng is not None:
        jitter = rng.uniform(-BOX_JITTER, BOX_JITTER, 4) * max(box.x_max - box.x_min, box.y_max - box.y_min)
        box = Box(*(float(value) for value in np.array([box.x_min, box.y_min, box.x_max, box.y_max]) + jitter))
    return Window.around(box, width, height, size)
