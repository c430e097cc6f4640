"""Binary masks: encodings, boxes, hygiene, feathering. [h, w], row 0 at the top."""

from __future__ import annotations

import io

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from PIL import Image
from pycocotools import mask as coco

from deocc_engines.errors import InvalidPrompt, TooLarge
from deocc_engines.image import encode_png
from deocc_engines.prompt import Box

__all__ = ["bounding_box", "clean", "decode_png", "decode_rle", "depth", "encode_rle", "mask_to_png"]

FIELD = "prompt.mask"
# Specks and holes below this share of the mask's area are noise of a segmenter or an annotator.
SPECK = 0.01
MAX_RLE = 1 << 20  # bytes; real masks have thousands


def bounding_box(mask: Bool[np.ndarray, "h w"]) -> Box:
    """The half-open box of a non-empty mask."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return Box(x, y, x + width, y + height)


def mask_to_png(mask: Bool[np.ndarray, "h w"]) -> bytes:
    """8-bit grey, 255 inside."""
    return encode_png(mask.view(np.uint8) * np.uint8(255))


def decode_png(content: bytes, width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """A one-channel 8-bit mask PNG of the image's size; above 127 is inside.

    Raises:
        InvalidPrompt: not such a PNG, or of another size.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.size != (width, height):  # before decoding: a mask may not be a bomb either
                raise InvalidPrompt(
                    f"the mask is {image.size[0]}x{image.size[1]}, the image {width}x{height}", field=FIELD
                )
            if image.mode not in ("L", "1"):
                raise InvalidPrompt("the mask must have one channel of 1 or 8 bits", field=FIELD)
            return np.array(image.convert("L")) > 127
    except InvalidPrompt:
        raise
    except Exception as error:  # whatever Pillow meets in hostile bytes
        raise InvalidPrompt("the mask is not a readable PNG", field=FIELD) from error


def encode_rle(mask: Bool[np.ndarray, "h w"]) -> bytes:
    """COCO compressed run lengths."""
    counts: bytes = coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"]
    return counts


def decode_rle(counts: bytes, rle_width: int, rle_height: int, width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """COCO compressed run lengths of the image's size.

    Raises:
        InvalidPrompt: malformed, or of another size.
        TooLarge: more run lengths than such an image can have.
    """
    if (rle_width, rle_height) != (width, height):
        raise InvalidPrompt(f"the mask is {rle_width}x{rle_height}, the image {width}x{height}", field=FIELD)
    if len(counts) > min(MAX_RLE, width * height + 16):
        raise TooLarge("the run lengths are longer than any mask of this size has; send a PNG", field=FIELD)
    # Not pycocotools': it is C without bounds checks, and these lengths come from anybody.
    runs = _run_lengths(counts)
    if sum(runs) != width * height:
        raise InvalidPrompt("the run lengths do not add up to the size of the mask", field=FIELD)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(columns.reshape(width, height).T)


def _run_lengths(counts: bytes) -> list[int]:
    """COCO's run lengths: base-32 digits offset by 48, delta-coded from the third on; empty if malformed."""
    runs: list[int] = []
    value, shift = 0, 0
    for byte in counts:
        digit = byte - 48
        if not 0 <= digit < 64 or shift > 40:
            return []
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            if len(runs) > 2:
                value += runs[-2]
            if value < 0:
                return []
            runs.append(value)
            value, shift = 0, 0
    return runs if shift == 0 else []


def clean(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Without specks and pinholes below SPECK of the area. Never empty if the input is not."""
    threshold = SPECK * np.count_nonzero(mask)
    kept = _without_small_parts(mask, threshold)
    return ~_without_small_parts(~kept, threshold)


def _without_small_parts(mask: Bool[np.ndarray, "h w"], threshold: float) -> Bool[np.ndarray, "h w"]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= threshold
    keep[0] = False  # the background
    if count > 1 and not keep.any():
        keep[1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])] = True
    return np.asarray(keep[labels])


def depth(mask: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Distance of each inside pixel to the outside, in pixels; the image's border does not count as outside."""
    padded = cv2.copyMakeBorder(mask.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)
