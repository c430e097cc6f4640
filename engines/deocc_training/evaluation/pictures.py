"""Photos of a data set: found by the names that annotations give them, read in the frame that annotations mean."""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps

from deocc_engines.image import encode_png
from deocc_training.evaluation.example import Unfit

__all__ = ["Images", "read_mask", "read_photo", "read_rgba", "size_of"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SENT_AS_THEY_ARE = ("PNG", "JPEG", "WEBP")  # what the service takes
PLAIN = ("L", "RGB")
ORIENTATION = 0x0112


class Images:
    """A folder of images, its subfolders included."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> Path:
        """By path, else by file name, else by stem, else without COCO 2014's prefix.

        Raises:
            Unfit: it is not there.
        """
        if ".." not in Path(name).parts and not Path(name).is_absolute() and (self.folder / name).is_file():
            return self.folder / name
        stem = Path(name).stem
        for wanted in (Path(name).name, stem, stem.rpartition("_")[2]):
            if wanted in self._index:
                return self._index[wanted]
        raise Unfit(f"the image {name} is not in {self.folder.name}")

    @cached_property
    def _index(self) -> dict[str, Path]:
        files = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        by_stem = {path.stem: path for path in reversed(files)}
        return by_stem | {path.name: path for path in reversed(files)}


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
