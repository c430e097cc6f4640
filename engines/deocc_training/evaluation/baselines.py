"""Answers without a model. They stand in every table: what does not beat them is not worth a model."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from deocc_training.measures import convex_hull, telea

__all__ = ["MASKS", "inpainted", "shapes"]

Mask = Bool[np.ndarray, "h w"]
MASKS = {
    "modal mask": "The visible part as the answer.",
    "convex hull": "The convex hull of the visible part (OpenCV).",
    "clipped hull": "The hull without what is neither visible of the object nor of anything known to stand in front.",
}


def shapes(modal: Mask, front: Mask) -> dict[str, Mask]:
    """The answers of MASKS, by name."""
    hull = convex_hull(modal)
    return dict(zip(MASKS, (modal, hull, hull & (modal | front)), strict=True))


def inpainted(photo: UInt8[np.ndarray, "h w 3"], modal: Mask, amodal: Mask) -> UInt8[np.ndarray, "h w 4"]:
    """The *inpaint baseline*: the true shape, filled from the visible part alone (Telea 2004, OpenCV).

    An oracle: it knows the shape. Nothing of the occluder's colours is used.
    """
    ys, xs = np.nonzero(amodal | modal)
    part = np.s_[max(0, ys.min() - 2) : ys.max() + 3, max(0, xs.min() - 2) : xs.max() + 3]
    return np.dstack([telea(photo, modal, part), np.where(amodal, 255, 0).astype(np.uint8)])
