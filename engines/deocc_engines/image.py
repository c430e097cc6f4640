"""Encoded bytes to upright RGB pixels and back."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from deocc_engines.errors import InvalidImage, TooLarge
from deocc_engines.limits import Limits

__all__ = ["Photo", "decode_image", "encode_png", "image_id_of"]

FORMATS = ("PNG", "JPEG", "WEBP")
# What has no agreed meaning as 8-bit RGB is refused with a hint rather than guessed at.
REFUSED_MODES = {
    "P": "palette images are not accepted; convert to RGB",
    "CMYK": "CMYK images are not accepted; convert to RGB",
    "1": "one-bit images are not accepted; convert to RGB",
}
# One filter for all rows and little searching take half of Pillow's time, which tries five filters on every row, for
# RGBA cut-outs of the same size and photographs that are up to a sixth larger. One channel is a mask: runs.
PNG_COLOURS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
PNG_RUNS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
PNG_RUNS += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]  # after the level, which would set it back
TO_OPENCV = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}  # the order in which OpenCV expects channels


@dataclass(frozen=True)
class Photo:
    """An upright image.

    Attributes:
        pixels: RGB, row 0 at the top.
        image_id: ``"sha256:"`` and the SHA-256 of the encoded bytes.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    image_id: str

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def image_id_of(content: bytes) -> str:
    """The content address under which an encoded image is known."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def decode_image(content: bytes, limits: Limits, *, field: str = "image.content", image_id: str | None = None) -> Photo:
    """Decodes PNG, JPEG or WebP, applies the EXIF orientation, flattens alpha on white.

    Args:
        image_id: of the content, if it is known.

    Raises:
        TooLarge: more bytes or pixels than ``limits`` allows (pixels are checked before decoding).
        InvalidImage: empty, truncated, animated, 16-bit, CMYK, palette, or not an image.
    """
    if not content:
        raise InvalidImage("the image is empty", field=field)
    if len(content) > limits.max_bytes:
        raise TooLarge(f"the image has {len(content)} bytes; at most {limits.max_bytes} are accepted", field=field)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is checked here
            pixels = _decode(content, limits, field)
    except (InvalidImage, TooLarge):
        raise
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the image has more than {limits.max_pixels} pixels", field=field) from error
    except Exception as error:  # Pillow's plugins raise whatever their parsers meet in hostile bytes
        raise InvalidImage("the image is damaged or truncated, or is not PNG, JPEG or WebP", field=field) from error
    return Photo(pixels, image_id or image_id_of(content))


def _decode(content: bytes, limits: Limits, field: str) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise TooLarge(
                f"the image has {width * height} pixels; at most {limits.max_pixels} are accepted", field=field
            )
        if min(width, height) < limits.min_side:
            raise InvalidImage(f"each side must be at least {limits.min_side} pixels", field=field)
        if getattr(image, "n_frames", 1) > 1:
            raise InvalidImage("animated images are not accepted; send one frame", field=field)
        if image.mode in REFUSED_MODES:
            raise InvalidImage(REFUSED_MODES[image.mode], field=field)
        if image.mode.startswith(("I", "F")) or _is_16_bit_png(content):
            raise InvalidImage(
                "images of more than 8 bits a channel are not accepted; convert to 8-bit RGB", field=field
            )
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        upright: Image.Image = image
        if "A" in upright.getbands() or "transparency" in upright.info:
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


def _is_16_bit_png(content: bytes) -> bool:
    # Pillow reads 16-bit RGB as 8-bit RGB and says nothing; the bit depth is byte 24 of the IHDR chunk.
    return content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 24 and content[24] == 16


def encode_png(pixels: UInt8[np.ndarray, "h w *c"]) -> bytes:
    """Encodes [h, w] grey, [h, w, 3] RGB or [h, w, 4] RGBA with straight alpha."""
    if pixels.ndim == 2:
        return cv2.imencode(".png", np.ascontiguousarray(pixels), PNG_RUNS)[1].tobytes()
    swapped = cv2.cvtColor(np.ascontiguousarray(pixels), TO_OPENCV[pixels.shape[2]])
    return cv2.imencode(".png", swapped, PNG_COLOURS)[1].tobytes()
