"""From a window's prediction to RGBA at the image's resolution, the visible pixels kept."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from deocc_engines.mask import depth
from deocc_engines.window import Window, to_uint8

__all__ = ["paste", "rim_of", "without_white"]

# The decoded mask is soft over about a model pixel; between these the edge is drawn. Decoders say too much rather than
# too little: on deocc-mini's training scenes .6 in the middle gave .004 more IoU than .5.
ALPHA_LOW, ALPHA_HIGH = 0.4, 0.8
RIM_SHARE = 0.004  # of the image's long side
SURE = 0.9  # above this a decoded pixel shows the object alone, not the white around it
SPREAD = 2.0  # model pixels


def rim_of(width: int, height: int) -> int:
    """Width in pixels of the feathered rim inside the modal mask, where prediction and photo are mixed."""
    return max(2, round(RIM_SHARE * max(width, height)))


def without_white(
    rgb: Float32[np.ndarray, "s s 3"], probability: Float32[np.ndarray, "s s"]
) -> Float32[np.ndarray, "s s 3"]:
    """The object's own colour, also at its edge, where the decoder mixes it with the white background.

    Inside, pixels stay. From the edge outwards the colour is that of the nearest sure pixels.
    """
    weight = np.clip((probability - SURE) / (1 - SURE), 0, 1)[..., None].astype(np.float32)
    colour, total = rgb.copy(), np.maximum(weight, 0)
    for spread in (SPREAD, 4 * SPREAD):  # the wider one reaches what has no sure pixel nearby
        mixed = cv2.GaussianBlur(rgb * weight, (0, 0), spread)
        share = cv2.GaussianBlur(weight, (0, 0), spread)[..., None]
        known = np.clip(share / 1e-3, 0, 1) * (1 - total)
        colour = colour * (1 - known) + known * mixed / np.maximum(share, 1e-6)
        total = np.maximum(total, np.clip(share / 1e-3, 0, 1))
    return np.asarray(colour, np.float32)


def paste(
    window: Window,
    rgb: Float32[np.ndarray, "s s 3"],
    probability: Float32[np.ndarray, "s s"],
    image: UInt8[np.ndarray, "h w 3"],
    modal: Bool[np.ndarray, "h w"],
    *,
    keep_visible: bool,
    whole: bool = False,
) -> tuple[UInt8[np.ndarray, "rh rw 4"], Bool[np.ndarray, "rh rw"]]:
    """RGBA (straight alpha) and amodal mask of the window's region; outside of it alpha is 0.

    Args:
        rgb: the object's own colours, in [0, 255], also where it is mixed with what surrounds it.
        probability: of belonging to the complete object.
        whole: nothing is hidden: the shape ends where the visible part does.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = window.region(width, height)
    seen = np.ascontiguousarray(modal[top:bottom, left:right])
    alpha = np.clip((window.put(probability, width, height) - ALPHA_LOW) / (ALPHA_HIGH - ALPHA_LOW), 0, 1)
    colour = window.put(rgb, width, height)
    if keep_visible:
        weight = np.clip(depth(seen) / rim_of(width, height), 0, 1)
        alpha = np.maximum(alpha, weight)
        photo = image[top:bottom, left:right].astype(np.float32)
        colour += (photo - colour) * weight[..., None]
    alpha *= seen if whole else _connected_to(seen, alpha)
    rgba = np.concatenate([to_uint8(colour), to_uint8(alpha * 255)[..., None]], axis=2)
    rgba[rgba[..., 3] == 0] = 0  # nothing is hidden under full transparency, and it compresses
    return rgba, rgba[..., 3] > 127


def _connected_to(seen: Bool[np.ndarray, "h w"], alpha: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """1 where alpha hangs together with the visible part: a guess elsewhere is another object's."""
    count, labels = cv2.connectedComponents((alpha > 0).view(np.uint8), connectivity=8)
    touched = np.zeros(count, np.float32)
    touched[np.unique(labels[seen])] = 1
    touched[0] = 0
    return np.asarray(touched[labels])
