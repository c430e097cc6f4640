"""What a mask and a picture are measured by. The docstrings are the report's definitions.

Masks are bool [h, w]; `answer` is the complete shape that was given, `truth` the annotated one, `modal` what is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from skimage.metrics import structural_similarity

__all__ = ["Overlap", "boundary_f", "hidden_psnr", "hidden_ssim", "iou", "overlap", "visible_error", "visible_kept"]

Mask = Bool[np.ndarray, "h w"]
TOLERANCE = 0.008  # of the image's diagonal, as in DAVIS
PSNR_CAP = 60.0  # dB; identical pixels would have infinitely many
PEAK = 255.0
SSIM_WINDOW = 7  # pixels; scikit-image's default


def iou(intersection: int, union: int) -> float:
    """Intersection over union (Jaccard index) of two masks in pixels; 1 for two empty masks.

    *miou* is its mean over instances. *miou_pooled* is the sum of all intersections over the sum of all unions, as the
    evaluation of SSSD has it (Zhan et al., "Self-Supervised Scene De-occlusion", CVPR 2020): large regions count more.
    *invisible_iou* is the IoU of `answer` without `modal` and `truth` without `modal`, over instances of which
    something is hidden; *invisible_iou_pooled* pools it.
    """
    return intersection / union if union else 1.0


def boundary_f(answer: Mask, truth: Mask) -> float:
    """F-measure of the contours (Martin et al., PAMI 2004; tolerance of DAVIS, Perazzi et al., CVPR 2016).

    Precision is the share of the answer's contour pixels within 0.008 of the image's diagonal of the truth's contour,
    recall the reverse; F is their harmonic mean. Contour pixels are those inside a mask with a 4-neighbour outside it;
    the image's border is no contour. 1 if neither has one, 0 if only one has.
    """
    contours = [_contour(answer), _contour(truth)]
    if not contours[0].any() or not contours[1].any():
        return float(contours[0].any() == contours[1].any())
    reach = TOLERANCE * float(np.hypot(*answer.shape))
    precision, recall = (float(np.mean(_distance(b)[a] <= reach)) for a, b in (contours, contours[::-1]))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def visible_error(rgba: UInt8[np.ndarray, "h w 4"], photo: UInt8[np.ndarray, "h w 3"], inner: Mask) -> float:
    """Mean absolute difference, in 8-bit levels, of the answer's colours and the photo's where the object is visible.

    Measured deeper inside the visible part than the service's feathered rim. With `keep_visible` it is 0, but for
    specks of the mask that the service takes for noise.
    """
    return float(np.abs(rgba[..., :3][inner].astype(np.int16) - photo[inner]).mean())


def visible_kept(answer: Mask, modal: Mask) -> float:
    """Share of the visible part that the answer contains."""
    return float(np.count_nonzero(answer & modal) / np.count_nonzero(modal))


def hidden_psnr(answer: UInt8[np.ndarray, "h w 3"], truth: UInt8[np.ndarray, "h w 3"], hidden: Mask) -> float:
    """Peak signal-to-noise ratio over the truly hidden pixels, in dB, at most 60.

    Both stand on white, so that what the answer leaves out counts as white.
    """
    error = float(((answer[hidden].astype(np.float64) - truth[hidden]) ** 2).mean())
    return min(PSNR_CAP, 10 * float(np.log10(PEAK**2 / error))) if error else PSNR_CAP


def hidden_ssim(answer: UInt8[np.ndarray, "h w 3"], truth: UInt8[np.ndarray, "h w 3"], hidden: Mask) -> float:
    """Structural similarity (Wang et al., TIP 2004; scikit-image, 7 pixel window), averaged over the hidden pixels.

    Both stand on white. NaN in images smaller than the window.
    """
    if min(hidden.shape) < SSIM_WINDOW:
        return float("nan")
    _, local = structural_similarity(answer, truth, channel_axis=2, full=True, win_size=SSIM_WINDOW)
    return float(local[hidden].mean())


@dataclass(frozen=True)
class Overlap:
    """One answer against the truth, in pixels.

    Attributes:
        intersection, union: of the complete shapes.
        hidden_intersection, hidden_union: of what lies outside the visible part.
        over: by neighbour, how much of its visible part the answer's hidden part covers.
    """

    intersection: int
    union: int
    hidden_intersection: int
    hidden_union: int
    boundary_f: float
    over: dict[str, int] = field(default_factory=dict)

    @property
    def iou(self) -> float:
        return iou(self.intersection, self.union)


def overlap(answer: Mask, truth: Mask, modal: Mask, neighbours: Mapping[str, Mask]) -> Overlap:
    """All that the tables need of an answer."""
    beyond = answer & ~modal
    hidden = truth & ~modal
    return Overlap(
        int(np.count_nonzero(answer & truth)),
        int(np.count_nonzero(answer | truth)),
        int(np.count_nonzero(beyond & hidden)),
        int(np.count_nonzero(beyond | hidden)),
        round(boundary_f(answer, truth), 6),
        {key: int(np.count_nonzero(beyond & mask)) for key, mask in neighbours.items()},
    )


def _contour(mask: Mask) -> Mask:
    padded = cv2.copyMakeBorder(mask.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inner = cv2.erode(padded, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))[1:-1, 1:-1]
    return np.asarray(mask & (inner == 0))


def _distance(contour: Mask) -> np.ndarray:
    return np.asarray(cv2.distanceTransform((~contour).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
