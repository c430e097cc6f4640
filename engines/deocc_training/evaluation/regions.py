"""COCO-amodal's regions: COCOA, BSDS-A, and MP3D-Amodal, which took over its annotations.

An annotation is one annotator's view of one image: `regions[]` with amodal polygons, `order` (1 is nearest), and
`visible_mask` and `invisible_mask` where a region is occluded. `depth_constraint` lists "front-back" pairs of orders,
e.g. "1-2,1-3". (Zhu et al., "Semantic Amodal Segmentation", CVPR 2017.)
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from deocc.errors import DeoccError
from deocc_training.evaluation.annotated import both_masks, unique
from deocc_training.evaluation.example import Example, InvalidDataset, Unfit
from deocc_training.evaluation.pictures import Images, name_of, read_photo, size_of

__all__ = ["Regions", "read_annotations"]

Mask = Bool[np.ndarray, "h w"]
CACHED = 16  # annotations whose masks are kept: the regions of one image come one after the other


class Regions:
    """A file of COCO-amodal annotations and a folder of images."""

    def __init__(self, whole: Mapping[str, Any], digest: str, images: Path) -> None:
        self._images = Images(images)
        self._annotations = [annotation for annotation in whole["annotations"] if annotation.get("regions")]
        self._named = {str(image.get("id")): image for image in whole.get("images") or ()}
        self._digest = digest
        self._places = [
            (at, index)
            for at, annotation in enumerate(self._annotations)
            for index in range(len(annotation["regions"]))
        ]
        self.keys = unique(self._key(at, index) for at, index in self._places)
        self._numbers = {place: index for index, place in enumerate(self._places)}
        # Kept on the instance: another data set must not find these masks.
        self._masks = lru_cache(maxsize=CACHED)(self._decode)

    def load(self, index: int) -> Example:
        """See Dataset."""
        at, number = self._places[index]
        annotation = self._annotations[at]
        region = annotation["regions"][number]
        path, width, height = self._frame(annotation)
        content, pixels = read_photo(path, width, height)
        masks, relations = self._masks(at)
        own = masks[number]
        if isinstance(own, str):
            raise Unfit(f"its masks cannot be decoded: {own}")
        modal, amodal = own
        orders = _orders(annotation["regions"])
        nearer = [
            m[0] for m, order in zip(masks, orders, strict=True) if order < orders[number] and not isinstance(m, str)
        ]
        known = {}
        for other, in_front in relations[number].items():
            theirs = masks[other]
            if not isinstance(theirs, str):
                known[self.keys[self._numbers[at, other]]] = (theirs[0], in_front)
        stuff = str(region.get("isStuff") or 0).lower() not in ("0", "false")
        return Example(
            key=self.keys[index],
            image=str(annotation.get("image_id", self._file_name(annotation))),
            content=content,
            pixels=pixels,
            modal=modal,
            amodal=amodal,
            front=np.any(nearer, axis=0) if nearer else np.zeros_like(modal),
            neighbours={key: mask for key, (mask, _) in known.items()},
            in_front={key: front for key, (_, front) in known.items()},
            text=str(region.get("name") or ""),
            groups=("stuff" if stuff else "things",),
        )

    def description(self) -> dict[str, Any]:
        """See Dataset."""
        return {"format": "cocoa", "annotations_sha256": self._digest, "examples": len(self.keys)}

    def _key(self, at: int, index: int) -> str:
        annotation = self._annotations[at]
        return f"{Path(self._file_name(annotation)).stem}/{annotation.get('id', at)}-{index}"

    def _file_name(self, annotation: Mapping[str, Any]) -> str:
        return name_of(self._named.get(str(annotation.get("image_id")), {}), annotation)

    def _frame(self, annotation: Mapping[str, Any]) -> tuple[Path, int, int]:
        path = self._images.find(self._file_name(annotation))
        image = self._named.get(str(annotation.get("image_id")), {})
        if image.get("width") and image.get("height"):
            return path, int(image["width"]), int(image["height"])
        for region in annotation["regions"]:
            seen = region.get("visible_mask") if isinstance(region, Mapping) else None
            if isinstance(seen, Mapping) and isinstance(seen.get("size"), list) and len(seen["size"]) == 2:
                height, width = seen["size"]
                return path, int(width), int(height)
        return path, *size_of(path)

    def _decode(self, at: int) -> tuple[list[tuple[Mask, Mask] | str], list[dict[int, bool]]]:
        """(visible, complete) of every region, or what is wrong with it; and who stands in front of whom."""
        annotation = self._annotations[at]
        _, width, height = self._frame(annotation)
        masks: list[tuple[Mask, Mask] | str] = []
        for region in annotation["regions"]:
            try:
                masks.append(both_masks(region, width, height))
            except DeoccError as error:
                masks.append(error.message)
        return masks, _relations(annotation, _orders(annotation["regions"]), masks)


def read_annotations(path: Path) -> tuple[Any, str]:
    """The content of a JSON file, or of a pickle that holds plain data, and its SHA-256.

    Raises:
        InvalidDataset: it is neither.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        if path.suffix.lower() in (".pkl", ".pickle"):  # as MP3D-Amodal's come
            return _without_arrays(_Plain(io.BytesIO(content)).load()), digest
        return json.loads(content), digest
    except (ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InvalidDataset(f"{path} cannot be read: {error}") from error


class _Plain(pickle.Unpickler):
    """Plain data only: a pickle may name any code to run, and none is."""

    ALLOWED = frozenset({"scalar", "_reconstruct", "ndarray", "dtype"})  # of numpy: numbers and arrays

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it would run {module}.{name}; save it as JSON")


def _without_arrays(value: Any) -> Any:
    """Arrays and their numbers as JSON would have them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _without_arrays(one) for key, one in value.items()}
    return [_without_arrays(one) for one in value] if isinstance(value, list | tuple) else value


def _orders(regions: Sequence[Mapping[str, Any]]) -> list[int]:
    """The smallest is nearest; where that is not said, or not once for each, regions come nearest first."""
    try:
        orders = [int(float(region["order"])) for region in regions]
    except (KeyError, TypeError, ValueError):
        orders = []
    return orders if orders and len(set(orders)) == len(orders) else list(range(1, len(regions) + 1))


def _relations(
    annotation: Mapping[str, Any], orders: Sequence[int], masks: Sequence[tuple[Mask, Mask] | str]
) -> list[dict[int, bool]]:
    """By region: {other region: it stands in front}, for the pairs whose order matters.

    These are `depth_constraint`'s pairs, or where there is none, those whose complete shapes overlap.
    """
    at = {order: number for number, order in enumerate(orders)}
    told = annotation.get("depth_constraint")
    numbered: list[tuple[int | None, int | None]]
    if isinstance(told, str | list):
        numbered = [(at.get(front), at.get(back)) for front, back in _pairs(told)]
    else:
        nearest_first = sorted(range(len(orders)), key=lambda number: orders[number])
        numbered = [(a, b) for i, a in enumerate(nearest_first) for b in nearest_first[i + 1 :] if _meet(masks, a, b)]
    relations: list[dict[int, bool]] = [{} for _ in orders]
    for front, back in numbered:
        if front is None or back is None or isinstance(masks[front], str) or isinstance(masks[back], str):
            continue
        relations[front][back] = False
        relations[back][front] = True
    return relations


def _pairs(told: str | list[Any]) -> list[tuple[int, int]]:
    """From "1-2,1-3", ["1-2", "1-3"] or [[1, 2], [1, 3]]; what is none of these says nothing."""
    pairs = []
    for one in told.split(",") if isinstance(told, str) else told:
        ends = one.split("-") if isinstance(one, str) else one
        try:
            front, back = (int(end) for end in ends)
        except (TypeError, ValueError):
            continue
        pairs.append((front, back))
    return pairs


def _meet(masks: Sequence[tuple[Mask, Mask] | str], a: int, b: int) -> bool:
    first, second = masks[a], masks[b]
    if isinstance(first, str) or isinstance(second, str):
        return False
    return bool((first[1] & second[1]).any())
