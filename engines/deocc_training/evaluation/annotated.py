"""What an annotation says of one object: its visible part and its complete shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from deocc.coco import COMPLETE, HIDDEN, VISIBLE, decode_segmentation, first_mask
from deocc.errors import InvalidInput

__all__ = ["both_masks", "knows_the_hidden", "unique"]

Mask = Bool[np.ndarray, "h w"]


def both_masks(part: Mapping[str, Any], width: int, height: int) -> tuple[Mask, Mask]:
    """(visible, complete) of an annotation or region.

    The complete shape is what COMPLETE names, else `segmentation` (COCO-amodal, COCOA-cls, D2SA).
    The visible part is what VISIBLE names; else the complete shape without what HIDDEN names; else, beside a complete
    shape under a name of its own, `segmentation`; else everything: COCO-amodal says nothing more of what is not
    occluded. An empty list, text or run length counts as not given, but for the visible part of an object whose
    complete shape has a name of its own (KINS): of it nothing is visible.

    Raises:
        InvalidInput: a mask is malformed, or of another size.
    """
    if not isinstance(part, Mapping):
        raise InvalidInput("it is not an object")
    told = first_mask(part, COMPLETE)
    complete = decode_segmentation(part.get("segmentation") if told is None else told, width, height)
    seen = first_mask(part, VISIBLE)
    if seen is not None:
        return decode_segmentation(seen, width, height), complete
    hidden = first_mask(part, HIDDEN)
    if hidden is not None:
        return complete & ~decode_segmentation(hidden, width, height), complete
    if told is not None and any(name in part for name in VISIBLE):
        return np.zeros_like(complete), complete
    if told is not None and first_mask(part, ("segmentation",)) is not None:
        return decode_segmentation(part["segmentation"], width, height), complete
    return complete, complete


def knows_the_hidden(part: Mapping[str, Any]) -> bool:
    """False where there is but one mask, which says nothing of what is hidden."""
    return first_mask(part, (*COMPLETE, *VISIBLE, *HIDDEN)) is not None


def unique(keys: Iterable[str]) -> list[str]:
    """The keys; one that comes again is numbered, in the file's order: "cup/7", "cup/7~2"."""
    seen: Counter[str] = Counter()
    found = []
    for key in keys:
        seen[key] += 1
        found.append(key if seen[key] == 1 else f"{key}~{seen[key]}")
    return found
