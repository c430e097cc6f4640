"""Sheets of pictures."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from torch import Tensor

from deocc_engines.deoccluder import Deoccluder
from deocc_engines.image import Photo
from deocc_engines.prompt import Prompt
from deocc_training.scenes import SceneSet

__all__ = ["answered", "grid", "on_checker", "outlined", "results"]

TILE = 192  # pixels
CHECKER = 12  # pixels
OUTLINE, CLICK = (255, 0, 200), (0, 255, 60)


def grid(pictures: Sequence[Tensor], columns: int) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures [3, s, s] in [−1, 1] (or [1, s, s]) row by row."""
    tiles = [((p.expand(3, -1, -1).permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).byte().cpu().numpy() for p in pictures]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def results(deoccluder: Deoccluder, scenes: SceneSet, indices: Sequence[int]) -> UInt8[np.ndarray, "h w 3"]:
    """Photo with the visible part outlined, result, truth; three scenes a row."""
    tiles = []
    for index in indices:
        photo, modal, target = scenes[index].shown()
        sample = deoccluder.complete(photo, Prompt(mask=modal)).samples[0]
        shown = outlined(photo.pixels, modal), on_checker(sample.rgba()), on_checker(target)
        tiles.append(np.concatenate([_tile(picture) for picture in shown], axis=1))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 3)
    rows = [np.concatenate(tiles[i : i + 3], axis=1) for i in range(0, len(tiles), 3)]
    return np.concatenate(rows)


def answered(
    deoccluder: Deoccluder, cases: Sequence[tuple[UInt8[np.ndarray, "h w 3"], Prompt]]
) -> UInt8[np.ndarray, "h w 3"]:
    """Photo with the prompt and the visible part that was found outlined, result; three photos a row."""
    tiles = []
    for pixels, prompt in cases:
        photo = Photo(pixels, f"sha256:{hashlib.sha256(pixels.tobytes()).hexdigest()}")
        modal = deoccluder.segment(photo, prompt)[0].mask
        sample = deoccluder.complete(photo, Prompt(mask=modal)).samples[0]
        shown = outlined(pixels, modal, thickness=3)
        for point in prompt.points:
            cv2.circle(shown, (int(point.x), int(point.y)), 9, CLICK, -1)
        if prompt.box is not None:
            x_min, y_min, x_max, y_max = (round(end) for end in dataclasses.astuple(prompt.box))
            cv2.rectangle(shown, (x_min, y_min), (x_max - 1, y_max - 1), CLICK, 2)
        tiles.append(np.concatenate([_tile(shown), _tile(on_checker(sample.rgba()))], axis=1))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 3)
    return np.concatenate([np.concatenate(tiles[i : i + 3], axis=1) for i in range(0, len(tiles), 3)])


def outlined(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], thickness: int = 1
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with the mask's contour drawn on it."""
    drawn = image.copy()
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, OUTLINE, thickness)
    return drawn


def on_checker(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    y, x = np.mgrid[: rgba.shape[0], : rgba.shape[1]] // CHECKER
    board = np.where((x + y) % 2, 235.0, 205.0)[..., None]
    alpha = rgba[..., 3:] / 255
    return np.asarray(rgba[..., :3] * alpha + board * (1 - alpha)).round().astype(np.uint8)


def _tile(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "t t 3"]:
    scale = (TILE - 4) / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.full((TILE, TILE, 3), 255, np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    return tile
