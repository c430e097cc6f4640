"""What one stage says of the object, in the pixels of its window; and what becomes of it in those of the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from deocc_engines.completion import Preview, Sample
from deocc_engines.mask import bounding_box
from deocc_engines.paste import paste
from deocc_engines.prompt import Box
from deocc_engines.window import Window, to_uint8

__all__ = ["WHITE", "Prediction"]

WHITE = 255.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """The decoded result of a stage, of the final latent or of an estimate on the way.

    In its methods `image` is the photo and `modal` the modal mask at its size; boxes are in pixels of the photo.
    """

    window: Window
    rgb: Float32[np.ndarray, "s s 3"]  # in [0, 255], the object's own, also at its edge
    probability: Float32[np.ndarray, "s s"]  # of belonging to the complete object
    whole: float | None = None  # the refiner's probability that next to nothing is hidden
    quality: float | None = None  # the IoU of the hidden part that the refiner expects

    def amodal_box(self, modal: Bool[np.ndarray, "h w"]) -> Box:
        """Of the predicted shape and the visible part, so never empty."""
        seen = bounding_box(modal)
        inside = self.probability > 0.5
        if not inside.any():
            return seen
        box, scale = bounding_box(inside), self.window.side / self.window.size
        left, top = self.window.left, self.window.top
        height, width = modal.shape
        return Box(
            max(min(seen.x_min, left + box.x_min * scale), 0),
            max(min(seen.y_min, top + box.y_min * scale), 0),
            min(max(seen.x_max, left + box.x_max * scale), width),
            min(max(seen.y_max, top + box.y_max * scale), height),
        )

    def sample(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        modal: Bool[np.ndarray, "h w"],
        seed: int,
        *,
        keep_visible: bool,
    ) -> Sample:
        """The complete object, cut out at the photo's scale; what is visible if rather nothing is hidden.

        Args:
            keep_visible: take what is visible from the photo itself.
        """
        size = (image.shape[1], image.shape[0])
        whole = self.whole is not None and self.whole > 0.5
        shown = self.window, self.rgb, self.probability, image, modal
        rgba, amodal = paste(*shown, keep_visible=keep_visible, whole=whole)
        left, top, right, bottom = self.window.region(*size)
        seen = modal[top:bottom, left:right]
        if not amodal.any():  # a prediction of nothing: what is seen is all there is
            amodal = seen.copy()
        box = bounding_box(np.ascontiguousarray(amodal))
        hidden = np.count_nonzero(amodal & ~seen) / np.count_nonzero(amodal)
        return Sample(
            patch=rgba,
            amodal=amodal,
            left=left,
            top=top,
            image_size=size,
            box=Box(box.x_min + left, box.y_min + top, box.x_max + left, box.y_max + top),
            seed=seed,
            score=self._score(self._taken(modal)),
            occluded_fraction=float(hidden),
            whole=self.whole,
        )

    def preview(self, modal: Bool[np.ndarray, "h w"], index: int) -> Preview:
        """The window as it looks now, for sample `index`."""
        window = self.window
        alpha = np.maximum(self.probability, self._taken(modal))
        rgba = to_uint8(np.concatenate([self.rgb, alpha[..., None] * 255], axis=2))
        return Preview(index, rgba, Box(window.left, window.top, window.left + window.side, window.top + window.side))

    def _taken(self, modal: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "s s"]:
        return self.window.take(modal.astype(np.float32), 0.0)

    def _score(self, modal: Float32[np.ndarray, "s s"]) -> float:
        """What the refiner expects, or how sure the mask is of itself times how much of the visible part it covers."""
        if self.quality is not None:
            return self.quality
        p = self.probability
        inside = np.maximum(p, modal) > 0.5
        certainty = float(np.abs(2 * p - 1)[inside].mean()) if inside.any() else 0.0
        covered = float((modal * (p > 0.5)).sum() / max(modal.sum(), 1e-6))
        return certainty * covered
