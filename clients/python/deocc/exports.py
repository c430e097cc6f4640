"""A completed object as others take it: 3D generators and annotation tools.

The three for 3D are cropped to a square around the complete object, centred on it, and as much larger as each of them
is used to; where it reaches beyond the photo there is nothing (transparent, black, or background).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from deocc.coco import Mask, encode_segmentation
from deocc.errors import InvalidInput

__all__ = ["AMODAL3R_LEVELS", "FORMATS", "MARGIN", "Exported", "Whole", "amodal3r", "coco", "gena3d", "trellis"]

MARGIN = 1.2  # side of the frame over the longer side of the amodal box, as TRELLIS and GENA3D crop their own inputs
AMODAL3R_MARGIN = 1 / 0.68  # Amodal3R's own tools scale the object to 0.68 of the frame
TRELLIS_SIDE = 518  # pixels; what TRELLIS resizes to before its image encoder
AMODAL3R_LEVELS = {"background": 255, "visible": 188, "occluded": 0}

Pixels: TypeAlias = npt.NDArray[np.uint8]
Exported: TypeAlias = Mapping[str, Image.Image | dict[str, Any]]
"""Contents by file name: a picture, or an object to be written as JSON."""


@dataclass(frozen=True, eq=False)
class Whole:
    """An object, complete, in the frame of its photo. All arrays have the photo's size.

    Attributes:
        photo: uint8 [h, w, 3], upright.
        rgba: uint8 [h, w, 4], straight alpha.
        modal: what is visible of it.
        amodal: its complete shape.

    Raises:
        InvalidInput: the sizes differ, or nothing is there.
    """

    photo: Pixels
    rgba: Pixels
    modal: Mask
    amodal: Mask
    name: str = "photo.png"  # of the photo's file
    text: str = ""  # what the object is

    def __post_init__(self) -> None:
        sizes = {array.shape[:2] for array in (self.photo, self.rgba, self.modal, self.amodal)}
        if len(sizes) > 1:
            raise InvalidInput("the photo, the completion and the masks must have the same size")
        if not self.amodal.any() or not self.modal.any():
            raise InvalidInput("the object's masks must not be empty")


def trellis(whole: Whole, side: int = TRELLIS_SIDE) -> Exported:
    """TRELLIS: one RGBA square crop; its own background removal is skipped when alpha is there."""
    return {"image.png": _Frame(whole.amodal, side).picture(whole.rgba)}


def amodal3r(whole: Whole, side: int = TRELLIS_SIDE) -> Exported:
    """Amodal3R: the photo's crop, and a mask of three levels: 255 background, 188 visible, 0 occluded.

    It blanks everything but the visible part itself; below 127 its reader takes for occluded, above 230 for background.
    """
    frame = _Frame(whole.amodal, side, AMODAL3R_MARGIN)
    levels = np.full(whole.modal.shape, AMODAL3R_LEVELS["background"], np.uint8)
    levels[whole.amodal] = AMODAL3R_LEVELS["occluded"]
    levels[whole.modal] = AMODAL3R_LEVELS["visible"]
    mask = frame.levels(levels, AMODAL3R_LEVELS["background"])
    return {"image.png": _on_black(frame.picture(_opaque(whole.photo))), "mask.png": mask}


def gena3d(whole: Whole, side: int = TRELLIS_SIDE) -> Exported:
    """GENA3D: the four files that its inference looks for, in one frame.

    The completed object is RGBA: its reader then crops all four by that alpha, where without alpha it would guess the
    object with a background remover first. The visible part stands on black, because everything in it that is not black
    may be taken for visible. The masks are 255 where the object is hidden, and where it is visible.
    """
    frame = _Frame(whole.amodal, side)
    seen = np.dstack([whole.photo, np.where(whole.modal, 255, 0).astype(np.uint8)])
    hidden = whole.amodal & ~whole.modal
    return {
        "amodal_completion.png": frame.picture(whole.rgba),
        "occ_mask0.png": frame.levels(np.where(hidden, 255, 0).astype(np.uint8), 0),
        "sd_img_cut.png": _on_black(frame.picture(seen)),
        "visibility_instance_mask.png": frame.levels(np.where(whole.modal, 255, 0).astype(np.uint8), 0),
    }


def coco(whole: Whole, side: int = 0) -> Exported:
    """COCO-style amodal annotations: one image with one annotation, its masks as compressed run lengths.

    `segmentation` is the complete shape; `visible_mask`, `invisible_mask` and `occlude_rate` are COCO-amodal's.
    """
    height, width = whole.amodal.shape
    hidden = whole.amodal & ~whole.modal
    ys, xs = np.nonzero(whole.amodal)
    x0, y0 = int(xs.min()), int(ys.min())
    annotation: dict[str, Any] = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": encode_segmentation(whole.amodal),
        "bbox": [x0, y0, int(xs.max()) + 1 - x0, int(ys.max()) + 1 - y0],
        "area": int(whole.amodal.sum()),
        "visible_mask": encode_segmentation(whole.modal & whole.amodal),
        "invisible_mask": encode_segmentation(hidden),
        "occlude_rate": float(hidden.sum() / whole.amodal.sum()),
    }
    image = {"id": 1, "file_name": whole.name, "width": width, "height": height}
    categories = [{"id": 1, "name": whole.text or "object"}]
    return {"annotations.json": {"images": [image], "annotations": [annotation], "categories": categories}}


FORMATS: dict[str, Callable[[Whole, int], Exported]] = {
    "trellis": trellis,
    "amodal3r": amodal3r,
    "gena3d": gena3d,
    "coco": coco,
}


class _Frame:
    """The square around an amodal mask, and pictures resampled into it."""

    def __init__(self, amodal: Mask, side: int, margin: float = MARGIN) -> None:
        ys, xs = np.nonzero(amodal)
        x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        half = margin * max(x1 - x0, y1 - y0) / 2
        middle = ((x0 + x1) / 2, (y0 + y1) / 2)
        # Whole pixels, so that pictures and masks meet exactly.
        self._left, self._top = int(np.floor(middle[0] - half)), int(np.floor(middle[1] - half))
        self._extent = int(np.ceil(2 * half))
        self._side = side

    def picture(self, rgba: Pixels) -> Image.Image:
        """RGBA; transparent pixels do not colour the edge."""
        premultiplied = Image.fromarray(rgba).convert("RGBa")
        return self._cut(premultiplied).resize((self._side, self._side), Image.Resampling.LANCZOS).convert("RGBA")

    def levels(self, mask: Pixels, outside: int) -> Image.Image:
        """Grey, with no levels but the mask's own."""
        inverted = Image.fromarray(mask ^ np.uint8(outside))  # a crop beyond the picture is filled with 0
        cut = self._cut(inverted).resize((self._side, self._side), Image.Resampling.NEAREST)
        return Image.fromarray(np.asarray(cut) ^ np.uint8(outside))

    def _cut(self, picture: Image.Image) -> Image.Image:
        return picture.crop((self._left, self._top, self._left + self._extent, self._top + self._extent))


def _opaque(rgb: Pixels) -> Pixels:
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def _on_black(rgba: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("RGB")
