"""Results to look at: chosen by index, never by eye, and the worst ones."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from deocc_engines.mask import bounding_box
from deocc_training.evaluation.example import Dataset, Example
from deocc_training.evaluation.measurement import first_rgba
from deocc_training.evaluation.row import Row

__all__ = ["COUNT", "MODAL_LINE", "TRUTH_LINE", "Tile", "chosen", "tile", "worst"]

CLIPPED = "clipped hull"  # the baseline that is hardest to beat
COUNT = 24  # of each sheet
SIDE = 176  # pixels of one panel
MARGIN = 0.15  # of the object's longer side, around it
CHECKER = 11  # pixels
MODAL_LINE, TRUTH_LINE = (255, 0, 200), (0, 160, 0)
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Tile:
    """One result as the page shows it: the photo with the visible part outlined, the answer, the truth."""

    key: str
    words: str
    picture: str  # a data: address


def chosen(rows: Sequence[Row]) -> list[Row]:
    """The first ones, as they come."""
    return list(rows[:COUNT])


def worst(rows: Sequence[Row], occluded_above: float) -> list[Row]:
    """Occluded ones whose first choice has the smallest IoU, failures first."""
    occluded = [row for row in rows if row.occluded > occluded_above]
    return sorted(occluded, key=lambda row: (row.failure is None, row.chosen().iou, row.index))[:COUNT]


def tile(dataset: Dataset, row: Row, pictures: Path) -> Tile:
    """Raises Unfit if the example cannot be read any more."""
    example = dataset.load(row.index)
    answer = first_rgba(row, pictures, example.modal.shape[:2])
    window = _window(example.amodal | example.modal | (answer[..., 3] > 127))
    photo = _outlined(example.pixels, example.modal, MODAL_LINE)
    panels = [photo[window], _on_checker(answer[window]), _truth(example)[window]]
    sheet = np.concatenate([_fitted(panel) for panel in panels], axis=1)
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, "JPEG", quality=JPEG_QUALITY)
    words = f"{row.occluded:.0%} hidden, "
    if row.failure:
        words += f"failed: {row.failure}"
    else:
        best = f"best of {len(row.answers)} {row.best_of(len(row.answers)).iou:.3f}"
        words += f"IoU {row.chosen().iou:.3f} ({best}, {CLIPPED} {row.baselines[CLIPPED].iou:.3f})"
    return Tile(row.key, words, "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode())


def _truth(example: Example) -> UInt8[np.ndarray, "h w 3"]:
    """Its appearance where that is known, else the photo; outlined."""
    picture = example.pixels if example.truth is None else _on_checker(example.truth)
    return _outlined(picture, example.amodal, TRUTH_LINE)


def _window(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    box = bounding_box(mask)
    margin = int(MARGIN * max(box.x_max - box.x_min, box.y_max - box.y_min)) + 2
    rows = slice(max(0, int(box.y_min) - margin), int(box.y_max) + margin)
    return rows, slice(max(0, int(box.x_min) - margin), int(box.x_max) + margin)


def _outlined(
    picture: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], colour: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    drawn = np.ascontiguousarray(picture).copy()
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, colour, max(1, max(mask.shape) // 400))
    return drawn


def _on_checker(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    y, x = np.mgrid[: rgba.shape[0], : rgba.shape[1]] // CHECKER
    board = np.where((x + y) % 2, 235.0, 205.0)[..., None]
    alpha = rgba[..., 3:] / 255
    return np.asarray(np.rint(rgba[..., :3] * alpha + board * (1 - alpha)), np.uint8)


def _fitted(panel: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    scale = (SIDE - 4) / max(panel.shape[:2])
    width, height = (max(1, round(side * scale)) for side in panel.shape[1::-1])
    small = Image.fromarray(np.ascontiguousarray(panel)).resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(small, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.array(square)
