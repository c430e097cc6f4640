"""What fills a scene besides cut-outs: backgrounds, and procedural occluders (bars, grids, blades, blobs).

Colours are float32 RGB in 0..255, [h, w, 3]; shapes are float32 alpha in 0..1, [h, w].
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["SHAPES", "Bytes", "Floats", "background", "colour_noise", "read_wallpaper", "wallpaper_crop"]

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]

_SHIFT = 4  # fractional bits of cv2's drawing coordinates, for antialiased edges at sub-pixel places


def read_wallpaper(path: Path) -> Bytes:
    """Read an RGB picture, uint8 [h, w, 3]."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(path)
    return np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)


def wallpaper_crop(rng: np.random.Generator, wallpaper: Bytes, height: int, width: int) -> Floats:
    """A random piece of a wallpaper at the wanted size, mirrored, re-lit and blurred at random."""
    rows, columns = wallpaper.shape[:2]
    largest = min(rows / height, columns / width)
    scale = float(np.exp(rng.uniform(np.log(min(0.6, largest)), np.log(largest))))  # wallpaper px per canvas px
    crop_h, crop_w = max(1, int(height * scale)), max(1, int(width * scale))
    y, x = int(rng.integers(rows - crop_h + 1)), int(rng.integers(columns - crop_w + 1))
    crop = wallpaper[y : y + crop_h, x : x + crop_w]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    resampling = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    out: Floats = cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=resampling).astype(np.float32)
    if rng.random() < 0.35:
        out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.6, 4)))
    tint = rng.uniform(0.85, 1.15, 3) * rng.uniform(0.65, 1.25)
    return np.clip(out * tint + rng.uniform(-20, 20), 0, 255).astype(np.float32)


def colour_noise(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Smooth noise of a few octaves between two colours, from clouds to grain."""
    field: Floats = np.zeros((height, width), np.float32)
    coarsest = int(rng.integers(2, 10))
    for octave in range(int(rng.integers(1, 6))):
        cells = min(coarsest << octave, 96)
        grid = rng.standard_normal((cells, cells), np.float32)
        field += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    low, high = np.percentile(field[::4, ::4], [2, 98])
    mix = np.clip((field - low) / max(high - low, 1e-6), 0, 1)[..., None]
    return _blend(rng, mix)


def _gradient(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A linear or radial gradient between two colours."""
    ys, xs = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    if rng.random() < 0.6:
        angle = rng.uniform(0, 2 * np.pi)
        field = xs * np.cos(angle) + ys * np.sin(angle)
    else:
        field = np.hypot(xs - rng.uniform(0, 1), ys - rng.uniform(0, 1))
    field = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    return _blend(rng, field[..., None].astype(np.float32))


def _stripes(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Stripes or a checkerboard, slightly softened."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 64)
    wave = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * 2 * np.pi / period)
    if rng.random() < 0.4:
        wave = wave * np.sin((ys * np.cos(angle) - xs * np.sin(angle)) * 2 * np.pi / period)
    return _blend(rng, np.clip(wave * rng.uniform(1, 8) + 0.5, 0, 1)[..., None].astype(np.float32))


def _blend(rng: np.random.Generator, mix: Floats) -> Floats:
    first = rng.uniform(0, 255, 3)
    second = first + rng.normal(0, 60, 3) if rng.random() < 0.6 else rng.uniform(0, 255, 3)
    return np.clip(first + (second - first) * mix, 0, 255).astype(np.float32)


def background(rng: np.random.Generator, wallpapers: list[Bytes], height: int, width: int) -> Floats:
    """A wallpaper crop in 70 % of the cases, else something procedural."""
    if wallpapers and rng.random() < 0.7:
        return wallpaper_crop(rng, wallpapers[int(rng.integers(len(wallpapers)))], height, width)
    procedural = (_gradient, colour_noise, colour_noise, _stripes)
    out = procedural[int(rng.integers(len(procedural)))](rng, height, width)
    if rng.random() < 0.5:
        out += rng.normal(0, rng.uniform(1, 8), (height, width, 1)).astype(np.float32)
    return np.clip(out, 0, 255).astype(np.float32)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _filled(size: int, polygons: list[NDArray[np.float64]]) -> Floats:
    canvas = np.zeros((size, size), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [_fixed(polygon)], 255, cv2.LINE_AA, _SHIFT)
    return (canvas / np.float32(255)).astype(np.float32)


def bars(rng: np.random.Generator, size: int) -> Floats:
    """One to five sticks of one direction, up to a railing."""
    count, angle = int(rng.integers(1, 6)), rng.uniform(0, np.pi)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    thickness, gap = rng.uniform(0.02, 0.09) * size, rng.uniform(0.12, 0.3) * size
    half = rng.uniform(0.35, 0.75) * size
    polygons = []
    for index in range(count):
        centre = size / 2 + across * ((index - (count - 1) / 2) * gap)
        corners = [(s, t) for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        polygons.append(np.array([centre + s * half * along + t * thickness / 2 * across for s, t in corners]))
    return _filled(size, polygons)


def grid(rng: np.random.Generator, size: int) -> Floats:
    """A fence of crossing wires."""
    canvas = np.zeros((size, size), np.uint8)
    step, thickness = rng.uniform(0.14, 0.3) * size, max(2, round(rng.uniform(0.012, 0.035) * size))
    lean = rng.uniform(-0.3, 0.3)
    for offset in np.arange(step / 2, size, step):
        for line in (((offset - lean * size, 0.0), (offset + lean * size, size)), ((0.0, offset), (size, offset))):
            ends = _fixed(np.array(line))
            start, end = (int(ends[0, 0]), int(ends[0, 1])), (int(ends[1, 0]), int(ends[1, 1]))
            cv2.line(canvas, start, end, 255, thickness, cv2.LINE_AA, _SHIFT)
    return (canvas / np.float32(255)).astype(np.float32)


def blades(rng: np.random.Generator, size: int) -> Floats:
    """Blades of grass: bent, pointed, from a common ground."""
    polygons = []
    rise = np.linspace(0, 1, 9)
    for _ in range(int(rng.integers(3, 14))):
        foot, bend = rng.uniform(0.1, 0.9) * size, rng.normal(0, 0.25) * size
        tall, wide = rng.uniform(0.4, 0.95) * size, rng.uniform(0.015, 0.05) * size
        middle = np.stack([foot + bend * rise**2, size - tall * rise], axis=1)
        side = np.stack([wide * (1 - rise), np.zeros_like(rise)], axis=1)
        polygons.append(np.concatenate([middle - side, (middle + side)[::-1]]))
    return _filled(size, polygons)


def blob(rng: np.random.Generator, size: int) -> Floats:
    """A closed random curve, from pebble to splash."""
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones_like(angles)
    for frequency in range(1, int(rng.integers(3, 9))):
        radius += rng.normal(0, 0.22 / frequency**0.8) * np.cos(frequency * angles + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.25, None)
    radius *= 0.48 * size / radius.max()
    squash = rng.uniform(0.5, 1)
    return _filled(size, [np.stack([radius * np.cos(angles), squash * radius * np.sin(angles)], axis=1) + size / 2])


def panel(rng: np.random.Generator, size: int) -> Floats:
    """A turned rectangle: a board, a wall, a sheet of paper."""
    angle, half = rng.normal(0, 0.3), np.array([0.48, rng.uniform(0.12, 0.45)]) * size * 0.9
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    return _filled(size, [corners @ turn.T + size / 2])


# Name and painter of every procedural occluder; the name is its caption.
SHAPES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "bars": bars, "fence": grid, "grass": blades, "blob": blob, "board": panel,
}  # fmt: skip
