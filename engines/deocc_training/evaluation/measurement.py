"""From an example and what came back to a row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from deocc.batch.draw import Drawn
from deocc.errors import DeoccError, InvalidInput, ServerError
from deocc_engines.image import encode_png
from deocc_engines.mask import bounding_box, depth
from deocc_training.evaluation.baselines import inpainted, shapes
from deocc_training.evaluation.example import Example
from deocc_training.evaluation.metrics import hidden_psnr, hidden_ssim, iou, overlap, visible_error, visible_kept
from deocc_training.evaluation.row import Row

__all__ = ["failed_row", "first_rgba", "measured_row", "on_white"]


def failed_row(index: int, example: Example, error: DeoccError) -> Row:
    """The engine gave nothing. A refusal of the input is final; anything else is worth another try."""
    return Row(
        **_asked(index, example),  # type: ignore[arg-type]
        failure=f"{type(error).__name__}: {error.message}",
        final=isinstance(error, InvalidInput),
    )


def measured_row(index: int, example: Example, drawn: Drawn, pictures: Path) -> Row:
    """Measures every sample, and keeps the picture of the first choice in `pictures`.

    Raises:
        ServerError: an answer is not of the image's size.
    """
    masks = [sample.mask for sample in drawn.samples]
    if any(mask.shape != example.modal.shape for mask in (*masks, drawn.modal.mask)):
        raise ServerError("the service answered with pictures that are not of the image's size")
    answers = tuple(overlap(mask, example.amodal, example.modal, example.neighbours) for mask in masks)
    rgba = np.array(drawn.samples[drawn.best].image.convert("RGBA"))
    name, corner = _keep(rgba, index, pictures)
    inner = example.modal & drawn.modal.mask & (depth(drawn.modal.mask) > drawn.rim)
    seen = drawn.modal.mask
    return Row(
        **_asked(index, example),  # type: ignore[arg-type]
        answers=answers,
        scores=tuple(round(sample.score, 6) for sample in drawn.samples),
        first=drawn.best,
        modal_iou=iou(int(np.count_nonzero(seen & example.modal)), int(np.count_nonzero(seen | example.modal))),
        visible_error=visible_error(rgba, example.pixels, inner) if inner.any() else None,
        visible_kept=visible_kept(masks[drawn.best], example.modal),
        said_whole=drawn.already_whole,
        appearance=_appearance(example, rgba),
        engine_id=drawn.engine_id,
        picture=name,
        corner=corner,
        seconds=drawn.seconds,
        timings=dict(drawn.timings),
    )


def first_rgba(row: Row, pictures: Path, shape: tuple[int, int]) -> UInt8[np.ndarray, "h w 4"]:
    """The first choice again, of the image's size; transparent where there is no answer."""
    canvas = np.zeros((*shape, 4), np.uint8)
    if row.picture is not None:
        with Image.open(pictures / row.picture) as picture:
            part = np.array(picture.convert("RGBA"))
        x, y = row.corner
        canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
    return canvas


def on_white(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """Flattened, as the pictures of the appearance metrics are."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)), np.uint8)


def _asked(index: int, example: Example) -> dict[str, object]:
    """The part of a row that needs no answer."""
    baselines = {
        name: overlap(mask, example.amodal, example.modal, example.neighbours)
        for name, mask in shapes(example.modal, example.front).items()
    }
    return {
        "index": index,
        "key": example.key,
        "image": example.image,
        "groups": example.groups,
        "text": example.text,
        "digest": example.digest(),
        "area": int(np.count_nonzero(example.amodal)),
        "hidden": int(np.count_nonzero(_hidden(example))),
        "in_front": dict(example.in_front),
        "baselines": baselines,
    }


def _hidden(example: Example) -> Bool[np.ndarray, "h w"]:
    return np.asarray(example.amodal & ~example.modal)


def _appearance(example: Example, rgba: UInt8[np.ndarray, "h w 4"]) -> dict[str, dict[str, float | None]]:
    hidden = _hidden(example)
    if example.truth is None or not hidden.any():
        return {}
    truth = on_white(example.truth)
    baseline = inpainted(example.pixels, example.modal, example.amodal)
    found: dict[str, dict[str, float | None]] = {}
    for name, answer in (("first", on_white(rgba)), ("inpaint", on_white(baseline))):
        ssim = hidden_ssim(answer, truth, hidden)
        found[name] = {
            "psnr": round(hidden_psnr(answer, truth, hidden), 6),
            "ssim": None if math.isnan(ssim) else round(ssim, 6),
        }
    return found


def _keep(rgba: UInt8[np.ndarray, "h w 4"], index: int, pictures: Path) -> tuple[str | None, tuple[int, int]]:
    """Writes the picture cropped to what is not transparent; its name and place."""
    inside = rgba[..., 3] > 0
    if not inside.any():
        return None, (0, 0)
    box = bounding_box(inside)
    x0, y0 = int(box.x_min), int(box.y_min)
    png = encode_png(np.ascontiguousarray(rgba[y0 : int(box.y_max), x0 : int(box.x_max)]))
    name = f"{index:06d}.png"
    partial = pictures / f"{name}.partial"
    partial.write_bytes(png)
    partial.replace(pictures / name)
    return name, (x0, y0)
