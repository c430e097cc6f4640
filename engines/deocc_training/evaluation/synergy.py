"""SynergyAmodal16K: a JSON list of instances whose masks are run lengths cropped to their boxes.

`filename, image_id, instance_id, bbox` (x, y, w, h), `captions[]`, and either `mask` for an unoccluded instance or
`modal_mask`, `amodal_mask` and `amodal_rgb`, a picture of the complete object cropped to the box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from deocc.coco import decode_segmentation
from deocc.errors import DeoccError
from deocc_training.evaluation.annotated import unique
from deocc_training.evaluation.example import Example, Unfit
from deocc_training.evaluation.pictures import Images, read_photo, read_rgba, size_of

__all__ = ["Synergy"]

PHOTOS, COMPLETED = "images", "amodal_rgbs"


class Synergy:
    """The list and its pictures.

    As it is published, photos lie in `images/` and completed objects in `amodal_rgbs/`, both beside the list; names may
    be the same in both, so that each is looked for in its own folder.

    Args:
        images: the folder of photos, or of both folders.
        beside: the list's own folder.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], digest: str, images: Path, beside: Path) -> None:
        self._rows = rows
        self._photos = Images(images / PHOTOS if (images / PHOTOS).is_dir() else images)
        around = (images, images.parent, beside)
        self._completed = Images(next((one / COMPLETED for one in around if (one / COMPLETED).is_dir()), images))
        self._digest = digest
        self.keys = unique(
            f"{Path(str(row['filename'])).stem}/{row.get('instance_id', at)}" for at, row in enumerate(rows)
        )

    def load(self, index: int) -> Example:
        """See Dataset."""
        row = self._rows[index]
        path = self._photos.find(str(row["filename"]))
        width, height = size_of(path)
        content, pixels = read_photo(path, width, height)
        whole = row.get("mask")
        modal = self._mask(row, whole or row.get("modal_mask"), width, height)
        amodal = modal if whole else self._mask(row, row.get("amodal_mask"), width, height)
        captions = row.get("captions") or [""]
        return Example(
            key=self.keys[index],
            image=str(row.get("image_id", row["filename"])),
            content=content,
            pixels=pixels,
            modal=modal,
            amodal=amodal,
            front=np.zeros_like(modal),  # the list knows no other objects
            truth=self._truth(row, pixels, amodal),
            text=str(captions[0]),
        )

    def description(self) -> dict[str, Any]:
        """See Dataset."""
        return {"format": "synergy", "annotations_sha256": self._digest, "examples": len(self.keys)}

    def _mask(self, row: Mapping[str, Any], encoded: Any, width: int, height: int) -> Bool[np.ndarray, "h w"]:
        if not isinstance(encoded, Mapping):
            raise Unfit("it has no mask")
        try:
            rows, columns = (int(side) for side in encoded["size"])
            part = decode_segmentation(encoded, columns, rows)
        except (DeoccError, KeyError, TypeError, ValueError) as error:
            raise Unfit(f"its mask cannot be decoded: {error}") from error
        if (columns, rows) == (width, height):
            return part
        return _placed(part, row, np.zeros((height, width), np.bool_))

    def _truth(
        self, row: Mapping[str, Any], pixels: UInt8[np.ndarray, "h w 3"], amodal: Bool[np.ndarray, "h w"]
    ) -> UInt8[np.ndarray, "h w 4"] | None:
        if row.get("mask"):
            return np.dstack([pixels, np.where(amodal, 255, 0).astype(np.uint8)])
        if not isinstance(row.get("amodal_rgb"), str):
            return None
        picture = read_rgba(self._completed.find(row["amodal_rgb"]))
        canvas = np.zeros((*amodal.shape, 4), np.uint8)
        whole = picture if picture.shape[:2] == amodal.shape else _placed(picture, row, canvas)
        return np.dstack([whole[..., :3], np.where(amodal, 255, 0).astype(np.uint8)])


def _placed(part: np.ndarray, row: Mapping[str, Any], canvas: np.ndarray) -> np.ndarray:
    """`part` on the canvas with its top left corner at the box's."""
    try:
        x, y = round(float(row["bbox"][0])), round(float(row["bbox"][1]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Unfit("it has no box") from error
    height, width = canvas.shape[:2]
    if x < 0 or y < 0 or y + part.shape[0] > height or x + part.shape[1] > width:
        raise Unfit(f"its box leaves the image: {part.shape[1]}x{part.shape[0]} at ({x}, {y}) in {width}x{height}")
    canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
    return canvas
