"""Entries out of COCO annotation files: plain instances, amodal instances, and COCO-amodal's regions.

What is completed is always the visible part, by the names that data sets give it, else `segmentation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from deocc.batch.manifest import SEGMENT, Entry, InvalidManifest, Problem
from deocc.coco import HIDDEN, VISIBLE, first_mask

__all__ = ["annotated_entries"]


def annotated_entries(whole: Mapping[str, Any], root: Path) -> tuple[Entry, ...]:
    """One entry an annotation or region; its id is the image's name, a slash and the annotation's id.

    Raises:
        InvalidManifest: an image is unknown, missing or misplaced, an id comes twice, a mask is not there.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    images = {str(image.get("id")): image for image in whole["images"] if isinstance(image, Mapping)}
    names = {category.get("id"): str(category.get("name", "")) for category in whole.get("categories") or ()}
    for number, annotation in enumerate(whole["annotations"], 1):
        if not isinstance(annotation, Mapping) or str(annotation.get("image_id")) not in images:
            problems.append(Problem(f"annotation {number}", "its image_id names no image"))
            continue
        image = images[str(annotation["image_id"])]
        try:
            file = _file(image, root)
        except ValueError as error:
            problems.append(Problem(f"image {annotation['image_id']}", str(error)))
            continue
        for suffix, part in _parts(annotation):
            name = f"{file.stem}/{suffix}"
            mask, fault = _visible(part)
            if fault:
                problems.append(Problem(name, fault))
                continue
            text = str(part.get("name") or names.get(part.get("category_id"), ""))
            row = {"id": name, "image": str(file.relative_to(root)), "prior_text": text}
            entries.append(Entry(name, file, mask, text=text, row=row))
    seen: set[str] = set()
    for entry in entries:
        if not all(SEGMENT.fullmatch(segment) for segment in entry.id.split("/")):
            problems.append(Problem(entry.id, "the id cannot be a path of folders"))
        if entry.id in seen:
            problems.append(Problem(entry.id, "the id comes twice"))
        seen.add(entry.id)
    if not entries and not problems:
        problems.append(Problem("the file", "it has no annotations"))
    if problems:
        raise InvalidManifest(list(dict.fromkeys(problems)))
    return tuple(entries)


def _file(image: Mapping[str, Any], root: Path) -> Path:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError("it has no file_name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"file_name leads out of the data set: {name}")
    if not (root / name).is_file():
        raise ValueError(f"file_name is missing: {name}; name the folder of images with --root")
    return root / name


def _visible(part: Any) -> tuple[Any, str]:
    """The mask of what is visible, and what is wrong with it."""
    if not isinstance(part, Mapping):
        return None, "it is not an object"
    seen = first_mask(part, VISIBLE)
    if seen is None and first_mask(part, HIDDEN) is not None:
        return None, "it says what is hidden, but not what is visible"  # its segmentation is the complete shape
    mask = first_mask(part, ("segmentation",)) if seen is None else seen
    return mask, "" if mask is not None else "it has no mask"


def _parts(annotation: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(annotation.get("regions"), list):  # COCO-amodal: one annotation an image and annotator
        for index, region in enumerate(annotation["regions"]):
            yield f"{annotation.get('id')}-{index}", region
    else:
        yield str(annotation.get("id")), annotation
