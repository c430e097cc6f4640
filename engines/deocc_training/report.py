"""Held-out figures of a bundle, and sheets of its results chosen by index.

Every figure is a mean over instances. Baselines answer without a model: the modal mask itself, its convex hull, and
the hull clipped to what is visible in front of the object or belongs to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from jaxtyping import Bool, UInt8
from tqdm import tqdm

from deocc_engines.completion import CompletionOptions
from deocc_engines.deoccluder import Deoccluder
from deocc_engines.errors import InvalidPrompt
from deocc_engines.image import Photo
from deocc_engines.loading import load_deoccluder
from deocc_engines.mask import depth
from deocc_engines.prompt import Point, Prompt
from deocc_training.scenes import Scene, SceneSet

__all__ = ["BINS", "SHEET", "Row", "evaluate", "iou", "on_checker", "outlined", "sheet", "summary"]

BINS = {"0-10 %": (0.01, 0.1), "10-50 %": (0.1, 0.5), "50-90 %": (0.5, 0.9), "90-100 %": (0.9, 1.01)}
OCCLUDED = 0.01  # a smaller hidden share counts as not occluded
SHEET = 24  # scenes on the sheet: the first ones, as they come
TILE = 192  # pixels
CHECKER = 12  # pixels
OUTLINE = (255, 0, 200)


@dataclass(frozen=True)
class Row:
    """One scene. IoUs in [0, 1]; of the invisible part NaN where nothing is hidden."""

    index: int
    kind: str
    occluded: float
    miou: float
    invisible_iou: float
    modal_miou: float
    hull_miou: float
    hull_invisible_iou: float
    clipped_hull_miou: float
    clipped_hull_invisible_iou: float
    said_whole: float
    click_iou: float  # of the segmenter's first answer to one click at the deepest visible point


def iou(a: Bool[np.ndarray, "h w"], b: Bool[np.ndarray, "h w"]) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def evaluate(deoccluder: Deoccluder, scenes: SceneSet, indices: Iterable[int]) -> list[Row]:
    """Completes each scene's target from its true modal mask, one sample with the default options and seed 0."""
    chosen = list(indices)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # one stream a core; results do not depend on the company
        rows = pool.map(lambda index: _row(deoccluder, scenes[index], index), chosen)
        return list(tqdm(rows, total=len(chosen), mininterval=5.0))


def _photo(scene: Scene, index: int) -> Photo:
    height, width = scene.size
    return Photo(np.ascontiguousarray(scene.image[:height, :width]), f"scene:{index}")


def _modal(scene: Scene) -> Bool[np.ndarray, "h w"]:
    height, width = scene.size
    return np.ascontiguousarray(scene.labels[:height, :width] == scene.target_label)


def _row(deoccluder: Deoccluder, scene: Scene, index: int) -> Row:
    height, width = scene.size
    modal = _modal(scene)
    truth = np.ascontiguousarray(scene.target[:height, :width, 3] > 127) | modal
    in_front = {i.label for i in scene.instances if i.in_front}
    front = np.isin(scene.labels[:height, :width], sorted(in_front))
    hull = _hull(modal)
    clipped = hull & (modal | front)
    completion = deoccluder.complete(_photo(scene, index), Prompt(mask=modal))
    answer = completion.samples[0].amodal_mask()
    hidden = bool((truth & ~modal).any())

    def invisible(mask: Bool[np.ndarray, "h w"]) -> float:
        return iou(mask & ~modal, truth & ~modal) if hidden else float("nan")

    return Row(
        index=index,
        kind=scene.kind,
        occluded=scene.occluded_fraction,
        miou=iou(answer, truth),
        invisible_iou=invisible(answer),
        modal_miou=iou(modal, truth),
        hull_miou=iou(hull, truth),
        hull_invisible_iou=invisible(hull),
        clipped_hull_miou=iou(clipped, truth),
        clipped_hull_invisible_iou=invisible(clipped),
        said_whole=float(completion.already_whole),
        click_iou=_click_iou(deoccluder, _photo(scene, index), modal),
    )


def _click_iou(deoccluder: Deoccluder, photo: Photo, modal: Bool[np.ndarray, "h w"]) -> float:
    y, x = np.unravel_index(np.argmax(depth(modal)), modal.shape)
    try:
        answers = deoccluder.segment(photo, Prompt(points=(Point(float(x) + 0.5, float(y) + 0.5),)))
    except InvalidPrompt:  # it sees nothing there
        return 0.0
    return iou(answers[0].mask, modal)


def _hull(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled.astype(bool)


def summary(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Means by group: occluded, by bin, by kind, and not occluded."""
    occluded = [r for r in rows if r.occluded > OCCLUDED]
    groups = {"occluded": occluded}
    groups |= {name: [r for r in occluded if low <= r.occluded < high] for name, (low, high) in BINS.items()}
    groups |= {kind: [r for r in occluded if r.kind == kind] for kind in ("photograph", "render", "drawing")}
    groups["not occluded"] = [r for r in rows if r.occluded <= OCCLUDED]
    return {name: _means(group) for name, group in groups.items() if group}


def _means(rows: Sequence[Row]) -> dict[str, float]:
    table = {
        key: np.array([asdict(r)[key] for r in rows], float) for key in asdict(rows[0]) if key not in ("index", "kind")
    }
    means = {key: round(float(np.nanmean(v)), 4) for key, v in table.items() if not np.isnan(v).all()}
    return {"scenes": len(rows), **means}


def sheet(deoccluder: Deoccluder, scenes: SceneSet, indices: Sequence[int]) -> UInt8[np.ndarray, "h w 3"]:
    """Photo with the visible part outlined, result, truth; three scenes a row."""
    tiles = []
    for index in indices:
        scene = scenes[index]
        height, width = scene.size
        modal = _modal(scene)
        sample = deoccluder.complete(_photo(scene, index), Prompt(mask=modal), CompletionOptions()).samples[0]
        shown = (
            outlined(scene.image[:height, :width], modal),
            on_checker(sample.rgba()),
            on_checker(scene.target[:height, :width]),
        )
        tiles.append(np.concatenate([_tile(picture) for picture in shown], axis=1))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 3)
    rows = [np.concatenate(tiles[i : i + 3], axis=1) for i in range(0, len(tiles), 3)]
    return np.concatenate(rows)


def outlined(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], thickness: int = 1
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with the mask's contour drawn on it."""
    drawn = image.copy()
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, OUTLINE, thickness)
    return drawn


def on_checker(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    y, x = np.mgrid[: rgba.shape[0], : rgba.shape[1]] // CHECKER
    board = np.where((x + y) % 2, 235.0, 205.0)[..., None]
    alpha = rgba[..., 3:] / 255
    return np.asarray(rgba[..., :3] * alpha + board * (1 - alpha)).round().astype(np.uint8)


def _tile(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "t t 3"]:
    scale = (TILE - 4) / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.full((TILE, TILE, 3), 255, np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    return tile


def main(
    scenes: Annotated[Path, typer.Option(help="a held-out set of scenes")],
    out: Annotated[Path, typer.Option(help="the JSON file to write")],
    bundle: Annotated[str | None, typer.Option()] = None,
    only: Annotated[Path | None, typer.Option(help="a JSON list of the indices to take")] = None,
    limit: int = 400,
) -> None:
    """Evaluates a bundle on held-out scenes."""
    held_out = SceneSet.open(scenes)
    indices = (json.loads(only.read_text()) if only else list(range(len(held_out))))[:limit]
    deoccluder, info = load_deoccluder(bundle)
    rows = evaluate(deoccluder, held_out, indices)
    report = {
        "engine_id": info.engine_id,
        "runtimes": info.runtimes,
        "scenes": len(rows),
        "summary": summary(rows),
        "rows": [asdict(r) for r in rows],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    typer.echo(json.dumps(report["summary"], indent=2))


if __name__ == "__main__":
    typer.run(main)
