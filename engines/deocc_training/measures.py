"""What a result is measured with, and the answers that need no model. Masks are bool [h, w], images uint8 RGB."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from deocc_engines.deoccluder import Deoccluder
from deocc_engines.errors import InvalidPrompt
from deocc_engines.image import Photo
from deocc_engines.mask import bounding_box, depth
from deocc_engines.prompt import Point, Prompt

__all__ = ["clicks", "convex_hull", "extended", "invisible_iou", "iou", "psnr", "telea"]

TELEA_RADIUS = 3.0  # pixels


def iou(a: Bool[np.ndarray, "h w"], b: Bool[np.ndarray, "h w"]) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def invisible_iou(
    answer: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], modal: Bool[np.ndarray, "h w"]
) -> float:
    """IoU of the hidden parts alone; NaN where nothing is hidden."""
    hidden = truth & ~modal
    return iou(answer & ~modal, hidden) if hidden.any() else float("nan")


def convex_hull(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Of a non-empty mask; its corners are pixel centres."""
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled.astype(bool)


def telea(
    rgb: UInt8[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], part: tuple[slice, slice]
) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of the known pixels of `part` (rows, columns) carried into the rest of it (Telea, 2004; OpenCV)."""
    filled = rgb.copy()
    unknown = (~known[part]).astype(np.uint8)
    filled[part] = cv2.inpaint(np.ascontiguousarray(rgb[part]), unknown, TELEA_RADIUS, cv2.INPAINT_TELEA)
    return filled


def extended(
    rgb: UInt8[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], onto: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The known pixels' colours carried by Telea into the rest of `onto`; as it is where there are none, or no rest."""
    if not (known & onto).any() or not (onto & ~known).any():
        return rgb
    box = bounding_box(onto)
    part = slice(int(box.y_min), int(box.y_max)), slice(int(box.x_min), int(box.x_max))
    return telea(rgb, known & onto, part)


def psnr(rgb: UInt8[np.ndarray, "h w 3"], truth: Float32[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"]) -> float:
    """In dB over the pixels `where`, of 255; NaN where there are none."""
    if not where.any():
        return float("nan")
    error = rgb[where].astype(np.float32) - truth[where]
    return float(-10 * np.log10(max(np.square(error / 255).mean(), 1e-10)))


def clicks(deoccluder: Deoccluder, photo: Photo, modal: Bool[np.ndarray, "h w"], count: int) -> list[float]:
    """IoU of the segmenter's first answer after 1, 2, … `count` clicks, each at the deepest point of the error.

    As SAM is evaluated (Kirillov et al., appendix D): the first click is the deepest visible point.
    """
    answer, points, ious = np.zeros_like(modal), list[Point](), list[float]()
    for _ in range(count):
        wrong = answer ^ modal
        if wrong.any():
            y, x = np.unravel_index(np.argmax(depth(np.ascontiguousarray(wrong))), modal.shape)
            points.append(Point(float(x) + 0.5, float(y) + 0.5, bool(modal[y, x])))
            try:
                answer = deoccluder.segment(photo, Prompt(points=tuple(points)))[0].mask
            except InvalidPrompt:  # it sees nothing there
                answer = np.zeros_like(modal)
        ious.append(iou(answer, modal))
    return ious
