"""Answers without a model. They stand in every table: what does not beat them is not worth a model."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

__all__ = ["MASKS", "convex_hull", "inpainted", "shapes"]

Mask = Bool[np.ndarray, "h w"]
MASKS = {
    "modal mask": "The visible part as the answer.",
    "convex hull": "The convex hull of the visible part (OpenCV).",
    "clipped hull": "The hull without what is neither visible of the object nor of anything known to stand in front.",
}
TELEA_RADIUS = 3.0  # pixels


def shapes(modal: Mask, front: Mask) -> dict[str, Mask]:
    """The answers of MASKS, by name."""
    hull = convex_hull(modal)
    return dict(zip(MASKS, (modal, hull, hull & (modal | front)), strict=True))


def convex_hull(mask: Mask) -> Mask:
    """Of a non-empty mask; its corners are pixel centres."""
    corners = cv2.convexHull(np.argwhere(mask)[:, ::-1].astype(np.int32))
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(filled, corners, 1)
    return filled.view(np.bool_)


def inpainted(photo: UInt8[np.ndarray, "h w 3"], modal: Mask, amodal: Mask) -> UInt8[np.ndarray, "h w 4"]:
    """The *inpaint baseline*: the true shape, filled from the visible part alone (Telea 2004, OpenCV).

    An oracle: it knows the shape. Nothing of the occluder's colours is used.
    """
    ys, xs = np.nonzero(amodal | modal)
    part = np.s_[max(0, ys.min() - 2) : ys.max() + 3, max(0, xs.min() - 2) : xs.max() + 3]
    unknown = (~modal[part]).astype(np.uint8)
    filled = photo.copy()
    filled[part] = cv2.inpaint(np.ascontiguousarray(photo[part]), unknown, TELEA_RADIUS, cv2.INPAINT_TELEA)
    return np.dstack([filled, np.where(amodal, 255, 0).astype(np.uint8)])
