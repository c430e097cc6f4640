"""Layers: cut-outs and shapes made ready to paint, their shadows, and what cameras do to the result.

A layer holds premultiplied colour, so painting it is a multiply and an add. Sizes are (h, w) in scene pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from deocc_training.cutout import Cutout, Pixels
from deocc_training.textures import SHAPES, Bytes, Floats, colour_noise, wallpaper_crop

__all__ = ["Layer", "Placed", "Rng", "cutout_layer", "degrade", "shadow", "shape_layer", "straight"]

Rng: TypeAlias = np.random.Generator


BENT = 0.5  # share of the cut-outs that are bent, where they may be
BEND = 0.08  # of the longer side: the farthest that a place is pulled


@lru_cache(maxsize=2500)
def _picture(path: Path) -> Pixels:
    bgra = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if bgra is None:
        raise FileNotFoundError(path)
    return np.ascontiguousarray(bgra[..., [2, 1, 0, 3]], dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Layer:
    """One object ready to be placed."""

    identity: str
    caption: str
    kind: str
    rgba: Floats  # [h, w, 4] premultiplied colour 0..255, alpha 0..1
    solid: NDArray[np.bool_]  # [h, w] alpha > .5


@dataclass(frozen=True, eq=False)
class Placed:
    """A layer and where it lies."""

    layer: Layer
    x: int  # left and top of the layer on the canvas; may lie outside
    y: int

    def on(self, canvas: NDArray[np.generic]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Row and column slices of the canvas and of the layer where they overlap."""
        (rows, columns), (height, width) = canvas.shape[:2], self.layer.solid.shape
        top, left = max(0, self.y), max(0, self.x)
        bottom, right = max(top, min(rows, self.y + height)), max(left, min(columns, self.x + width))
        return (
            (slice(top, bottom), slice(left, right)),
            (slice(top - self.y, bottom - self.y), slice(left - self.x, right - self.x)),
        )


def _warped(rng: Rng, rgba: Floats, angle: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Turn a premultiplied picture about its centre, on a canvas just large enough, trimmed."""
    height, width = rgba.shape[:2]
    cos, sin = abs(np.cos(angle)), abs(np.sin(angle))
    out_w, out_h = int(np.ceil(width * cos + height * sin)) + 2, int(np.ceil(width * sin + height * cos)) + 2
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(np.degrees(angle)), 1.0)
    turn[:, 2] += np.array([out_w - width, out_h - height]) / 2 + rng.uniform(-0.5, 0.5, 2)
    out = np.clip(cv2.warpAffine(rgba, turn, (out_w, out_h), flags=cv2.INTER_LINEAR), 0, 255).astype(np.float32)
    rows, columns = np.nonzero((out[..., 3] > 0.02).any(axis=1))[0], np.nonzero((out[..., 3] > 0.02).any(axis=0))[0]
    out = np.ascontiguousarray(out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return out, out[..., 3] > 0.5


def _bent(rng: Rng, rgba: Floats) -> Floats:
    """Pulled about smoothly, by a few per cent of its length, on a canvas that holds it all."""
    reach = BEND * max(rgba.shape[:2])
    pad = int(np.ceil(reach))
    wide = cv2.copyMakeBorder(rgba, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    height, width = wide.shape[:2]
    cells = int(rng.integers(3, 6))
    pull = cv2.resize(
        rng.standard_normal((cells, cells, 2), np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    pull = np.clip(pull * rng.uniform(0, reach / 2), -reach, reach)
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    return np.asarray(cv2.remap(wide, xs + pull[..., 0], ys + pull[..., 1], cv2.INTER_LINEAR), np.float32)


def cutout_layer(
    rng: Rng, cutout: Cutout, long_side: float, fit: tuple[int, int], stretch: float = 1.0, bend: bool = False
) -> Layer:
    """A cut-out scaled, mirrored, re-lit and turned; shrunk further where it would not fit into (h, w).

    Args:
        bend: at times its shape is pulled about too, for variety.
    """
    source = _picture(cutout.path)
    angle = float(rng.normal(0, 0.15)) if rng.random() < 0.8 else float(rng.uniform(0, 2 * np.pi))
    cos, sin = abs(np.cos(angle)), abs(np.sin(angle))
    height, width = source.shape[0], source.shape[1] * stretch
    # Beyond 1.5 x its own pixels a picture is only blur, which a model would learn to paint.
    scale = min(long_side / max(height, width), 1.5)
    bends = bend and rng.random() < BENT
    room = (1 + 2 * BEND if bends else 1) * np.array([width * sin + height * cos, width * cos + height * sin])
    scale = min(scale, *(np.array(fit) - (6 if bends else 3)) / room)
    out_w, out_h = max(4, round(width * scale)), max(4, round(height * scale))
    mirrored = source[:, ::-1] if rng.random() < 0.5 else source
    premultiplied = mirrored.astype(np.float32)
    premultiplied[..., 3] /= 255
    contrast, pivot = rng.uniform(0.8, 1.15), 128.0
    gain = rng.uniform(0.75, 1.15) * rng.uniform(0.94, 1.06, 3)
    colour = np.clip(((premultiplied[..., :3] - pivot) * contrast + pivot) * gain, 0, 255)
    premultiplied[..., :3] = colour * premultiplied[..., 3:]
    resampling = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(premultiplied, (out_w, out_h), interpolation=resampling).astype(np.float32)
    if bends:
        small = _bent(rng, small)
    rgba, solid = _warped(rng, small, angle)
    return Layer(cutout.identity, cutout.caption, cutout.kind, rgba, solid)


def shape_layer(rng: Rng, wallpapers: list[Bytes], name: str, size: int) -> Layer:
    """A procedural occluder filled with a piece of wallpaper or with noise."""
    alpha = SHAPES[name](rng, size)
    if wallpapers and rng.random() < 0.5:
        colour = wallpaper_crop(rng, wallpapers[int(rng.integers(len(wallpapers)))], size, size)
    else:
        colour = colour_noise(rng, size, size)
    rgba = np.concatenate([colour * alpha[..., None], alpha[..., None]], axis=2)
    any_angle = float(rng.uniform(0, 2 * np.pi)) if name == "blob" else float(rng.normal(0, 0.1))
    turned, solid = _warped(rng, rgba, any_angle)
    return Layer(f"procedural/{name}", name, "procedural", turned, solid)


def shadow(rng: Rng, placed: Placed, size: tuple[int, int]) -> Floats:
    """Darkening [h, w] in 0..1 under a layer: a drop shadow, or a flat contact shadow at its foot."""
    alpha = np.zeros(size, np.float32)
    canvas, own = placed.on(alpha)
    alpha[canvas] = placed.layer.rgba[..., 3][own]
    height, width = placed.layer.solid.shape
    if rng.random() < 0.4:
        foot = np.zeros(size, np.float32)
        centre = (int(placed.x + width / 2), int(placed.y + height * 0.97))
        cv2.ellipse(foot, centre, (max(2, int(width * 0.45)), max(2, int(height * 0.07))), 0, 0, 360, 1.0, -1)
        alpha = foot
    else:
        shift = np.array([[1, 0, rng.uniform(-8, 8)], [0, 1, rng.uniform(1, 10)]], np.float64)
        alpha = cv2.warpAffine(alpha, shift, size[::-1]).astype(np.float32)
    half = cv2.resize(alpha, (size[1] // 2, size[0] // 2), interpolation=cv2.INTER_AREA)
    soft: Floats = cv2.resize(cv2.GaussianBlur(half, (0, 0), float(rng.uniform(0.8, 4))), size[::-1])
    return (soft * rng.uniform(0.15, 0.55)).astype(np.float32)


def straight(premultiplied: Floats) -> Pixels:
    """Straight-alpha uint8 RGBA of premultiplied colour; white where alpha is 0."""
    alpha = premultiplied[..., 3:]
    colour = np.where(alpha > 0.5 / 255, premultiplied[..., :3] / np.maximum(alpha, 1e-6), 255)
    rounded: Pixels = np.rint(np.clip(np.concatenate([colour, alpha * 255], axis=2), 0, 255)).astype(np.uint8)
    return rounded


def degrade(rng: Rng, image: Pixels) -> Pixels:
    """What cameras and web pages do to pictures: scaling, noise, JPEG."""
    height, width = image.shape[:2]
    choice = rng.random()
    out = image
    if choice < 0.35:
        factor = rng.uniform(0.5, 0.9)
        small = cv2.resize(out, (int(width * factor), int(height * factor)), interpolation=cv2.INTER_AREA)
        out = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    elif choice < 0.5:
        noisy = out + rng.standard_normal(out.shape, np.float32) * np.float32(rng.uniform(2, 8))
        out = np.clip(noisy, 0, 255).astype(np.uint8)
    if choice > 0.25:
        quality = int(rng.integers(45, 93))
        _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(out[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        assert decoded is not None
        out = np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)
    return out
