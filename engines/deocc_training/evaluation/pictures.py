"""Photos of a data set: found by the names that annotations give them, read in the frame that annotations mean."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps

from deocc_engines.image import encode_png
from deocc_training.evaluation.example import Unfit

__all__ = ["Images", "name_of", "read_mask", "read_photo", "read_rgba", "size_of"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SENT_AS_THEY_ARE = ("PNG", "JPEG", "WEBP")  # what the service takes
PLAIN = ("L", "RGB")
COCO_DIGITS = 12  # of a file's name: COCO_val2014_000000000139.jpg, 000000000139.jpg
ORIENTATION = 0x0112


class Images:
    """A folder of images, its subfolders included."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> Path:
        """By path; else by file name, by stem, or by COCO's number, with or without its prefix of 2014.

        Of several files the one whose path ends most like the name is meant.

        Raises:
            Unfit: it is not there, or several are as likely.
        """
        given = PurePosixPath(name.replace("\\", "/"))
        if ".." not in given.parts and not given.is_absolute() and (self.folder / given).is_file():
            return self.folder / given
        number = given.stem.rpartition("_")[2]
        padded = number.zfill(COCO_DIGITS) if number.isdigit() else number
        for wanted in dict.fromkeys((given.name, given.stem, number, padded)):
            if wanted in self._index:
                return self._nearest(given, self._index[wanted])
        raise Unfit(f"the image {name} is not in {self.folder.name}")

    def _nearest(self, given: PurePosixPath, files: Sequence[Path]) -> Path:
        alike = [_common_end(given.parts, file.relative_to(self.folder).parts) for file in files]
        best = [file for file, count in zip(files, alike, strict=True) if count == max(alike)]
        if len(best) > 1:
            names = ", ".join(str(file.relative_to(self.folder)) for file in best[:3])
            raise Unfit(f"the image {given} may be any of {names}")
        return best[0]

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """Files by name, by stem, and by COCO's number."""
        found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                number = path.stem.rpartition("_")[2]
                coco = {number} if number.isdigit() and len(number) == COCO_DIGITS else set()
                for key in {path.name, path.stem, *coco}:
                    found[key].append(path)
        return dict(found)


def name_of(image: Mapping[str, Any], annotation: Mapping[str, Any]) -> str:
    """The image's file: its `file_name`, else the last part of an address, else its id."""
    for told in (image, annotation):
        if told.get("file_name"):
            return str(told["file_name"])
    for told in (image, annotation):
        for key in ("coco_url", "url", "flickr_url"):
            if told.get(key):
                return PurePosixPath(urlsplit(str(told[key])).path).name
    return str(annotation.get("image_id"))


def _common_end(a: Sequence[str], b: Sequence[str]) -> int:
    """How many parts of two paths are the same, counted from their ends."""
    count = 0
    for one, other in zip(reversed(a), reversed(b), strict=False):
        if one != other:
            break
        count += 1
    return count


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8) else (width, height)
    except (OSError, SyntaxError, ValueError) as error:
        raise Unfit(f"the image {path.name} cannot be read: {error}") from error


def read_photo(path: Path, width: int, height: int) -> tuple[bytes, UInt8[np.ndarray, "h w 3"]]:
    """What is sent, and its pixels.

    The file's own bytes are sent where the service reads them as the annotator saw them. Otherwise (an EXIF
    orientation that the annotator's tool ignored, a format or mode that the service refuses) its pixels go as PNG.

    Args:
        width, height: of the annotation's frame.

    Raises:
        Unfit: it cannot be read, or is of another size.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image)
            as_the_service_sees_it = upright.size == (width, height)
            pixels = np.array((upright if as_the_service_sees_it else image).convert("RGB"))
            untouched = as_the_service_sees_it and image.format in SENT_AS_THEY_ARE and image.mode in PLAIN
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unfit(f"the image {path.name} cannot be read: {error}") from error
    if pixels.shape[:2] != (height, width):
        raise Unfit(f"the image {path.name} is {pixels.shape[1]}x{pixels.shape[0]}, its annotation {width}x{height}")
    return (content if untouched else encode_png(pixels)), pixels


def read_mask(path: Path) -> Bool[np.ndarray, "h w"]:
    """Grey above 127 is inside; of a cut-out, alpha above 127.

    Raises:
        Unfit: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            channel = image.getchannel("A") if "A" in image.getbands() else image.convert("L")
            return np.array(channel) > 127
    except (OSError, SyntaxError, ValueError) as error:
        raise Unfit(f"the mask {path.name} cannot be read: {error}") from error


def read_rgba(path: Path) -> UInt8[np.ndarray, "h w 4"]:
    """Raises Unfit."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:
        raise Unfit(f"the picture {path.name} cannot be read: {error}") from error
