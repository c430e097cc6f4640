"""The pictures of a manifest, looked at before any work starts."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from deocc.batch.manifest import Entry, InvalidManifest, Problem
from deocc.coco import decode_segmentation
from deocc.engines import Limits
from deocc.errors import DeoccError
from deocc.images import mask_png

__all__ = ["check_entries", "check_limits", "mask_of", "upright_size"]

TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
ORIENTATION = 0x0112


def check_entries(entries: Sequence[Entry]) -> None:
    """Decodes every photo and every mask.

    Raises:
        InvalidManifest: one cannot be read, a mask is empty or of another size, a point lies outside.
    """
    with ThreadPoolExecutor() as pool:
        images = sorted({entry.image for entry in entries})
        sizes = dict(zip(images, pool.map(_size_or_fault, images), strict=True))
        faults = pool.map(partial(_fault, sizes), entries)
        problems = [Problem(entry.id, fault) for entry, fault in zip(entries, faults, strict=True) if fault]
    if problems:
        raise InvalidManifest(problems)


def check_limits(entries: Sequence[Entry], limits: Limits) -> None:
    """What the service would refuse, found out before the first request.

    Raises:
        InvalidManifest: a photo or a text is over a limit of the service.
    """
    problems = []
    for entry in entries:
        width, height = upright_size(entry.image)
        over = {
            f"{len(entry.text)} characters of text": (len(entry.text), limits.max_text_characters),
            f"{entry.image.stat().st_size} bytes of photo": (entry.image.stat().st_size, limits.max_bytes),
            f"{width * height} pixels": (width * height, limits.max_pixels),
            f"{len(entry.points)} points": (len(entry.points), limits.max_points),
        }
        problems += [
            Problem(entry.id, f"{what} are over the service's limit of {limit}")
            for what, (value, limit) in over.items()
            if value > limit
        ]
    if problems:
        raise InvalidManifest(problems)


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height after the EXIF orientation, without decoding the pixels."""
    with Image.open(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ORIENTATION) in TURNED else (width, height)


def mask_of(entry: Entry) -> bytes | None:
    """The mask as it is sent: a one-channel PNG of 0 and 255; None if points and box say it.

    Raises:
        DeoccError, OSError: it cannot be read.
    """
    if entry.mask is None:
        return None
    if isinstance(entry.mask, Path):
        return mask_png(entry.mask)
    return mask_png(decode_segmentation(entry.mask, *upright_size(entry.image)))


def _size_or_fault(path: Path) -> tuple[int, int] | str:
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # what Pillow warns of is the service's to judge
            image.load()
        return upright_size(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"the image cannot be read: {path.name}: {error}"


def _fault(sizes: Mapping[Path, Any], entry: Entry) -> str | None:
    size = sizes[entry.image]
    if isinstance(size, str):
        return size
    if entry.mask is not None:
        return _mask_fault(entry, size)
    width, height = size
    for x, y, *_ in entry.points:
        if not (0 <= x < width and 0 <= y < height):
            return f"the point ({x:g}, {y:g}) lies outside the image of {width}x{height} pixels"
    if entry.box is not None:
        x0, y0, x1, y1 = entry.box
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            return f"the box {entry.box} is empty or leaves the image of {width}x{height} pixels"
    return None


def _mask_fault(entry: Entry, size: tuple[int, int]) -> str | None:
    try:
        png = mask_of(entry)
        with Image.open(io.BytesIO(png or b"")) as mask:
            if mask.size != size:
                return f"the mask is {mask.size[0]}x{mask.size[1]}, the image {size[0]}x{size[1]}"
            return None if mask.getbbox() else "the mask is empty"
    except (DeoccError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"the mask cannot be read: {error}"
