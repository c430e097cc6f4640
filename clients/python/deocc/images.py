"""What a caller may hand over as an image or a mask, made into what goes over the wire."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, TypeAlias

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from deocc.errors import ConnectionFailed, InvalidImage, InvalidPrompt
from deocc.results import UploadedImage
from deocc.v1 import deocclusion_pb2 as v1

__all__ = ["ImageLike", "MaskLike", "image_content", "image_source", "mask_png"]

ImageLike: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[np.uint8] | UploadedImage
"""A path, an http(s) address, encoded bytes, an open file, a PIL image, a uint8 array
[h, w], [h, w, 3] or [h, w, 4], or an image that was uploaded before."""

MaskLike: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[np.generic]
"""A path, encoded bytes, an open file, a PIL image, or an array [h, w]: bool, or numbers of
which those above the middle of 0 to 255 belong to the object. Coloured pictures are made grey."""

FETCH_TIMEOUT = 30.0  # seconds, for an image behind an address
INSIDE = 127  # a mask's grey values above this belong to the object; as in the wire contract


def image_source(image: ImageLike) -> v1.ImageSource:
    """Names an uploaded image, or carries the encoded bytes."""
    if isinstance(image, UploadedImage):
        return v1.ImageSource(image_id=image.image_id)
    return v1.ImageSource(content=image_content(image))


def image_content(image: ImageLike) -> bytes:
    """The encoded bytes of an image: untouched where it is already encoded, else PNG.

    Pixels in memory (PIL, numpy) are taken as they stand, without an EXIF orientation: coordinates are theirs.

    Raises:
        OSError: the file cannot be read.
        InvalidImage: an array that is no 8-bit picture, or an upload where bytes are needed.
        ConnectionFailed: the address cannot be fetched.
        TypeError: not an image at all.
    """
    if isinstance(image, UploadedImage):
        raise InvalidImage("this image is uploaded already", field="image.content")
    if isinstance(image, np.ndarray):
        return _encode(_picture(image))
    if isinstance(image, Image.Image):
        return _encode(_plain(image))
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return _fetch(image)
    return _read(image)


def mask_png(mask: MaskLike) -> bytes:
    """One channel, 8 bit, 255 inside.

    Raises:
        OSError: the file cannot be read.
        InvalidPrompt: not a picture, or an array that is not [h, w].
        TypeError: not a mask at all.
    """
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or 0 in mask.shape:
            raise InvalidPrompt(f"a mask is an array [h, w], not of shape {list(mask.shape)}", field="prompt.mask")
        inside = mask if mask.dtype == np.bool_ else np.greater(mask, INSIDE)
        return _encode(Image.fromarray(inside.astype(np.uint8) * 255))
    if isinstance(mask, Image.Image):
        grey = mask
    else:
        try:
            grey = Image.open(io.BytesIO(_read(mask)))
        except UnidentifiedImageError as error:
            raise InvalidPrompt("the mask is not a readable picture", field="prompt.mask") from error
    if grey.mode != "1" and "A" in grey.getbands():
        grey = _on_black(grey)
    return _encode(grey.convert("L").point(lambda value: 255 if value > INSIDE else 0))


def _on_black(picture: Image.Image) -> Image.Image:
    """A cut-out used as a mask: what is transparent lies outside, whatever colour hides there."""
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)


def _picture(array: npt.NDArray[np.uint8]) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise InvalidImage(
            f"an image is a uint8 array [h, w], [h, w, 3] or [h, w, 4], not {array.dtype} {list(array.shape)}",
            field="image.content",
        )
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array))


def _plain(picture: Image.Image) -> Image.Image:
    """In a mode that the service takes; what Pillow has decoded needs no guessing."""
    if picture.mode in ("L", "LA", "RGB", "RGBA"):
        return picture
    if picture.mode.startswith(("I", "F")):
        raise InvalidImage(
            "images of more than 8 bits a channel are not accepted; convert to 8-bit RGB", field="image.content"
        )
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _encode(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="PNG", compress_level=1)  # speed counts here, not size
    return out.getvalue()


def _fetch(address: str) -> bytes:
    try:
        answer = httpx.get(address, follow_redirects=True, timeout=FETCH_TIMEOUT)
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionFailed(f"the image could not be fetched: {error}", field="image.content") from error
    return answer.content


def _read(source: str | os.PathLike[str] | bytes | IO[bytes]) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return Path(source).read_bytes()
    if hasattr(source, "read"):
        content = source.read()
        if isinstance(content, bytes):
            return content
        raise TypeError("open the file in binary mode")
    raise TypeError(f"expected an image, not {type(source).__name__}")
