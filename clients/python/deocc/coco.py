"""Masks as COCO writes them: polygons, run lengths as lists, and compressed run lengths; and the names they go by.

Run lengths go down the columns, column by column, and begin with the number of zeros; compressed, each is a number of
base-32 digits offset by 48, delta-coded from the third on (https://github.com/cocodataset/cocoapi, `maskApi`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from deocc.errors import InvalidInput, NotInstalled

__all__ = ["COMPLETE", "HIDDEN", "VISIBLE", "Mask", "decode_segmentation", "encode_segmentation", "first_mask"]

Mask: TypeAlias = npt.NDArray[np.bool_]
"""[h, w], row 0 at the top."""

# The names that amodal data sets give to the masks of an object, where it is not `segmentation`.
COMPLETE = ("a_segm", "amodal_segm", "amodal_seg", "amodal_segmentation", "amodal_mask")
VISIBLE = (
    "visible_mask",  # COCO-amodal, D2SA, COCOA-cls, our own export
    "i_segm",  # KINS
    "inmodal_seg",  # KINS as SSSD has it
    "inmodal_segm",
    "visible_segm",
    "visible_seg",
    "visible_segmentation",
    "modal_mask",
)
HIDDEN = ("invisible_mask", "invisible_segm", "invisible_segmentation")

LONGEST_RUN = 40  # bits; no image has more pixels


def first_mask(part: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of these fields that holds a mask; None if all are empty: a list, a text, or run lengths of nothing."""
    for name in names:
        value = part.get(name)
        if value.get("counts") if isinstance(value, Mapping) else value:
            return value
    return None


def decode_segmentation(segmentation: object, width: int, height: int) -> Mask:
    """A mask of the image's size.

    Args:
        segmentation: a polygon [x, y, x, y, …] or [[x, y], …], a list of polygons, or {"size": [h, w], "counts": …}.
            Parts of one or two corners, which enclose nothing, count for nothing beside a whole one.

    Raises:
        InvalidInput: it is none of these, of another size, or its run lengths do not add up.
        NotInstalled: a polygon, and pycocotools is not there.
    """
    if isinstance(segmentation, Mapping):
        return _from_runs(segmentation, width, height)
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str | bytes) and segmentation:
        polygons = segmentation if isinstance(segmentation[0], Sequence) else [segmentation]
        if all(isinstance(one, Sequence) and len(one) == 2 for one in polygons):  # its corners one by one
            polygons = [[value for corner in polygons for value in corner]]
        return _from_polygons(polygons, width, height)
    raise InvalidInput("a segmentation is a list of polygons, or an object with size and counts")


def encode_segmentation(mask: Mask) -> dict[str, Any]:
    """{"size": [h, w], "counts": compressed run lengths}, as pycocotools writes it but with text for bytes."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": _compressed(runs)}


def _from_polygons(polygons: Sequence[Any], width: int, height: int) -> Mask:
    try:
        numbers = [[float(value) for value in polygon] for polygon in polygons]
    except (TypeError, ValueError) as error:
        raise InvalidInput("a polygon is a list of numbers") from error
    whole = [polygon for polygon in numbers if len(polygon) >= 6]
    if not whole or any(len(polygon) % 2 or not np.isfinite(polygon).all() for polygon in numbers):
        raise InvalidInput("a polygon has three corners at least, each of them a finite x and y")
    try:
        from pycocotools import mask as coco
    except ImportError as error:  # COCO's rule for pixels on the outline is its own: nothing else draws the same mask
        raise NotInstalled("polygons need pycocotools; pip install pycocotools") from error
    return _from_runs(coco.merge(coco.frPyObjects(whole, height, width)), width, height)


def _from_runs(segmentation: Mapping[str, Any], width: int, height: int) -> Mask:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        raise InvalidInput(f"the run lengths are for a mask of [h, w] = {size}, the image has {[height, width]}")
    runs = _expanded(counts) if isinstance(counts, str | bytes) else _listed(counts)
    # Checked here, because pycocotools takes run lengths that fall short for memory it never wrote.
    if sum(runs) != width * height:
        raise InvalidInput("the run lengths do not add up to the size of the mask")
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape((height, width), order="F"))


def _listed(counts: object) -> list[int]:
    """Whole numbers; 3.0 is one, too, as some writers of JSON have it."""
    if not isinstance(counts, Sequence) or not all(_is_count(run) for run in counts):
        raise InvalidInput("run lengths are a list of non-negative numbers, or a string")
    return [int(run) for run in counts]


def _is_count(run: object) -> bool:
    return isinstance(run, int | float) and run >= 0 and float(run).is_integer()


def _expanded(counts: str | bytes) -> list[int]:
    runs: list[int] = []
    value, shift = 0, 0
    for code in counts.encode("latin-1", "replace") if isinstance(counts, str) else counts:
        digit = code - 48
        if not 0 <= digit < 64 or shift > LONGEST_RUN:
            raise InvalidInput("the run lengths are malformed")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        value -= (1 << shift) if digit & 16 else 0
        value += runs[-2] if len(runs) > 2 else 0
        if value < 0:
            raise InvalidInput("the run lengths are malformed")
        runs.append(value)
        value, shift = 0, 0
    if shift:
        raise InvalidInput("the run lengths are malformed")
    return runs


def _compressed(runs: Sequence[int]) -> str:
    text = bytearray()
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            digit = value & 31
            value >>= 5
            done = value == (-1 if digit & 16 else 0)
            text.append(digit + 48 + (0 if done else 32))
            if done:
                break
    return text.decode("ascii")
