"""COCO files with an amodal and a visible mask for each instance: KINS, COCOA-cls and its kind, our own export.

The names of the masks are those of `annotated`. In KINS (Qi et al., CVPR 2019)
`oco_id` names a cluster of instances that overlap, and `ico_id` their order in it from 1, which is nearest; 0 is alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from deocc.errors import DeoccError
from deocc_training.evaluation.annotated import both_masks, knows_the_hidden, unique
from deocc_training.evaluation.example import Example, InvalidDataset, Unfit
from deocc_training.evaluation.pictures import Images, name_of, read_photo, size_of

__all__ = ["Instances"]

Mask = Bool[np.ndarray, "h w"]
CACHED = 16  # images


class Instances:
    """A file of COCO instances and a folder of images."""

    def __init__(self, whole: Mapping[str, Any], digest: str, images: Path) -> None:
        if not any(knows_the_hidden(annotation) for annotation in whole["annotations"]):
            raise InvalidDataset("these are visible masks only: no annotation says what is hidden")
        self._images = Images(images)
        self._annotations: list[Mapping[str, Any]] = list(whole["annotations"])
        self._named = {str(image.get("id")): image for image in whole.get("images") or ()}
        self._categories = {one.get("id"): str(one.get("name", "")) for one in whole.get("categories") or ()}
        self._digest = digest
        self._together: dict[str, list[int]] = defaultdict(list)
        for number, annotation in enumerate(self._annotations):
            self._together[self._file_name(annotation)].append(number)
        self.keys = unique(self._key(number) for number in range(len(self._annotations)))
        self._masks = lru_cache(maxsize=CACHED)(self._decode)

    def load(self, index: int) -> Example:
        """See Dataset."""
        annotation = self._annotations[index]
        if annotation.get("iscrowd"):
            raise Unfit("a crowd is not an object")
        path, width, height = self._frame(annotation)
        content, pixels = read_photo(path, width, height)
        masks = self._masks(self._file_name(annotation))
        own = masks[index]
        if isinstance(own, str):
            raise Unfit(f"its masks cannot be decoded: {own}")
        modal, amodal = own
        relations = {}
        for other in self._together[self._file_name(annotation)]:
            theirs = masks[other]
            if other == index or isinstance(theirs, str):
                continue
            front = _stands_in_front(self._annotations[other], theirs, annotation, own)
            if front is not None:
                relations[other] = (theirs[0], front)
        nearer = [mask for mask, front in relations.values() if front]
        return Example(
            key=self.keys[index],
            image=str(annotation.get("image_id", self._file_name(annotation))),
            content=content,
            pixels=pixels,
            modal=modal,
            amodal=amodal,
            front=np.any(nearer, axis=0) if nearer else np.zeros_like(modal),
            neighbours={self.keys[other]: mask for other, (mask, _) in relations.items()},
            in_front={self.keys[other]: front for other, (_, front) in relations.items()},
            text=str(annotation.get("name") or self._categories.get(annotation.get("category_id"), "")),
        )

    def description(self) -> dict[str, Any]:
        """See Dataset."""
        return {"format": "instances", "annotations_sha256": self._digest, "examples": len(self.keys)}

    def _key(self, number: int) -> str:
        annotation = self._annotations[number]
        return f"{Path(self._file_name(annotation)).stem}/{annotation.get('id', number)}"

    def _file_name(self, annotation: Mapping[str, Any]) -> str:
        return name_of(self._named.get(str(annotation.get("image_id")), {}), annotation)

    def _frame(self, annotation: Mapping[str, Any]) -> tuple[Path, int, int]:
        path = self._images.find(self._file_name(annotation))
        image = self._named.get(str(annotation.get("image_id")), {})
        if image.get("width") and image.get("height"):
            return path, int(image["width"]), int(image["height"])
        return path, *size_of(path)

    def _decode(self, image: str) -> dict[int, tuple[Mask, Mask] | str]:
        numbers = self._together[image]
        _, width, height = self._frame(self._annotations[numbers[0]])
        masks: dict[int, tuple[Mask, Mask] | str] = {}
        for number in numbers:
            annotation = self._annotations[number]
            try:
                masks[number] = both_masks(annotation, width, height)
            except DeoccError as error:
                masks[number] = error.message
        return masks


def _stands_in_front(
    other: Mapping[str, Any], theirs: tuple[Mask, Mask], own: Mapping[str, Any], masks: tuple[Mask, Mask]
) -> bool | None:
    """Whether `other` stands in front of `own`; None if nobody knows.

    Where the file gives no order, whoever is visible where the other is hidden stands in front.
    """
    if "ico_id" in other and "ico_id" in own:
        if other.get("oco_id") != own.get("oco_id") or not other["ico_id"] or not own["ico_id"]:
            return None
        return None if other["ico_id"] == own["ico_id"] else bool(other["ico_id"] < own["ico_id"])
    covers = np.count_nonzero(theirs[0] & masks[1] & ~masks[0])
    covered = np.count_nonzero(masks[0] & theirs[1] & ~theirs[0])
    return None if covers == covered else bool(covers > covered)
