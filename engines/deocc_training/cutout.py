"""A cut-out: one object whose complete shape and appearance are known, and the judgement of what may be one.

Pictures are straight-alpha RGBA, uint8 [h, w, 4]; after `clean` they are trimmed to the object and at most
`LONG_SIDE` pixels long.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["LONG_SIDE", "Cutout", "Kind", "RejectedError", "area_resize", "clean", "decode", "flatness", "open_picture"]

Kind = Literal["render", "photograph", "drawing"]
Pixels: TypeAlias = NDArray[np.uint8]

# Scenes are 256 px long and no object is longer than that: more would only be thrown away at every composition.
LONG_SIDE = 288
_SHORTEST = 56  # px of the long side; smaller ones would be magnified into mush
_MAX_DECODED = 40_000_000  # px; openclipart holds a few posters of 16000 px


@dataclass(frozen=True)
class Cutout:
    """One object picture. `identity` is "source/class.../name"; variants of one thing share it."""

    source: str  # package it comes from
    identity: str  # unit of the train/test split
    kind: Kind
    caption: str  # short English noun phrase, lower case
    path: Path  # cleaned RGBA PNG in the cache

    @property
    def category(self) -> str:
        """The identity without its last part: things alike, such as "tuxpaint/food/fruit"."""
        return self.identity.rpartition("/")[0]


class RejectedError(Exception):
    """A picture is no usable cut-out; the message names the reason in one or two words."""


def open_picture(path: Path) -> Image.Image:
    """Open a picture without decoding it, so that the size of a few posters is refused rather than warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(path)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise RejectedError("too large") from error


def decode(path: Path) -> Pixels:
    """Read any picture as straight-alpha RGBA, uint8 [h, w, 4]."""
    with open_picture(path) as picture:
        if picture.width * picture.height > _MAX_DECODED:
            raise RejectedError("too large")
        has_alpha = "A" in picture.getbands() or "transparency" in picture.info
        if not has_alpha:
            raise RejectedError("no alpha")
        return np.asarray(picture.convert("RGBA"))


def area_resize(rgba: Pixels, height: int, width: int) -> Pixels:
    """Scale straight-alpha RGBA through premultiplied colour, so hidden colours cannot bleed into edges."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    premultiplied = np.concatenate([rgba[..., :3] * alpha, alpha * 255], axis=2)
    shrinking = height * width < rgba.shape[0] * rgba.shape[1]
    scaled = cv2.resize(premultiplied, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
    out_alpha = np.clip(scaled[..., 3:], 0, 255)
    colour = scaled[..., :3] * (255 / np.maximum(out_alpha, 1e-3))
    rounded: Pixels = np.rint(np.clip(np.concatenate([colour, out_alpha], axis=2), 0, 255)).astype(np.uint8)
    return rounded


def clean(rgba: Pixels) -> Pixels:
    """Trim to the one main object and shrink to LONG_SIDE; raise RejectedError for what is no solid single object."""
    height, width = rgba.shape[:2]
    alpha = rgba[..., 3]
    if (alpha > 127).mean() < 0.01:
        raise RejectedError("nearly empty")
    if max(height, width) > 3 * LONG_SIDE:  # keeps the morphology below cheap
        factor = 3 * LONG_SIDE / max(height, width)
        rgba = area_resize(rgba, max(1, round(height * factor)), max(1, round(width * factor)))
    rgba = _main_component(rgba)
    rgba = _trim(rgba)
    factor = min(1.0, LONG_SIDE / max(rgba.shape[:2]))
    if factor < 1:
        rgba = area_resize(rgba, max(1, round(rgba.shape[0] * factor)), max(1, round(rgba.shape[1] * factor)))
    _judge(rgba)
    # Editors leave anything in fully transparent pixels; white makes the file a function of what is seen.
    rgba[rgba[..., 3] == 0] = (255, 255, 255, 0)
    return rgba


def _main_component(rgba: Pixels) -> Pixels:
    solid = (rgba[..., 3] > 127).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if count < 2:
        raise RejectedError("nearly empty")
    areas = stats[1:, cv2.CC_STAT_AREA]
    main = int(areas.argmax()) + 1
    if areas.max() < 0.94 * areas.sum():
        raise RejectedError("several parts")
    near = cv2.dilate((labels == main).astype(np.uint8), np.ones((5, 5), np.uint8))
    kept = rgba.copy()
    kept[..., 3] *= near
    return kept


def _trim(rgba: Pixels) -> Pixels:
    ys, xs = np.nonzero(rgba[..., 3] > 8)
    return rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].copy()


def _judge(rgba: Pixels) -> None:
    height, width = rgba.shape[:2]
    alpha = rgba[..., 3]
    solid = alpha > 127
    if max(height, width) < _SHORTEST or min(height, width) < 12:
        raise RejectedError("tiny")
    if max(height, width) > 6 * min(height, width):
        raise RejectedError("sliver")
    if solid.mean() > 0.975:
        raise RejectedError("fills the frame")
    reach = max(1, round(max(height, width) / 64))
    inside = cv2.erode(np.pad(solid, 1).astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8))[1:-1, 1:-1] > 0
    if inside.sum() < 0.35 * solid.sum() or inside.sum() < 0.06 * solid.size:
        raise RejectedError("thin lines")
    if (alpha[inside] < 240).mean() > 0.08:
        raise RejectedError("ghost")
    if ((alpha > 12) & ~solid).sum() > 0.22 * solid.sum():
        raise RejectedError("soft shadow")
    colour = rgba[..., :3][inside].astype(np.int16)
    spread = colour.max(axis=1) - colour.min(axis=1)
    inked = (spread < 18) & ((colour.mean(axis=1) < 45) | (colour.mean(axis=1) > 225))
    if inked.mean() > 0.88:
        raise RejectedError("line art")
    if np.abs(colour - np.median(colour, axis=0)).max(axis=1).mean() < 6:
        raise RejectedError("one flat colour")


def flatness(rgba: Pixels) -> float:
    """Share of neighbouring opaque pixels with exactly the same colour: near 0 for photographs, high for drawings."""
    solid = rgba[..., 3] > 250
    both = solid[:, 1:] & solid[:, :-1]
    if not both.any():
        return 1.0
    same = (rgba[:, 1:, :3] == rgba[:, :-1, :3]).all(axis=2)
    return float(same[both].mean())
