"""Tiny data sets in the layouts that others publish, and the command run on them with a fake engine."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco

WIDTH, HEIGHT = 96, 80
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def photo(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    noise = np.random.default_rng(number).integers(0, 256, (10, 12, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def rectangle(x0: int, y0: int, x1: int, y1: int) -> list[float]:
    return [float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]


def decoded(runs: dict[str, Any]) -> Mask:
    """By pycocotools, which the code under test does not ask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, about pycocotools
        return np.asarray(coco.decode(runs)).astype(bool)


def drawn(polygon: list[float]) -> Mask:
    return decoded(coco.merge(coco.frPyObjects([polygon], HEIGHT, WIDTH)))


def run_lengths(mask: Mask) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def shapes(number: int) -> list[list[float]]:
    """A board in front of a wedge, both in front of the ground; nearest first."""
    shift = 3 * number
    board = rectangle(30 + shift, 10, 50 + shift, 60)
    wedge = [float(v) for v in (20 + shift, 20, 70, 25, 60, 50, 25 + shift, 55)]
    return [board, wedge, rectangle(0, 40, WIDTH, HEIGHT)]


def visible(polygons: list[list[float]]) -> list[Mask]:
    masks: list[Mask] = []
    taken = np.zeros((HEIGHT, WIDTH), bool)
    for polygon in polygons:
        masks.append(drawn(polygon) & ~taken)
        taken |= drawn(polygon)
    return masks


def write_cocoa(folder: Path, images: int = 3) -> Path:
    """COCO_amodal_*.json beside its images, as COCO-amodal publishes it."""
    folder.mkdir(parents=True, exist_ok=True)
    whole: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for number in range(images):
        name = f"COCO_val2014_{number:012d}.png"
        Image.fromarray(photo(number)).save(folder / name)
        whole["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        polygons = shapes(number)
        regions = []
        for order, (polygon, seen) in enumerate(zip(polygons, visible(polygons), strict=True), 1):
            complete = drawn(polygon)
            hidden = complete & ~seen
            region: dict[str, Any] = {"segmentation": polygon, "order": order, "isStuff": int(order == 3)}
            region |= {"name": f"thing {order}", "occlude_rate": float(hidden.sum() / complete.sum())}
            if hidden.any():
                region |= {"visible_mask": run_lengths(seen), "invisible_mask": run_lengths(hidden)}
            regions.append(region)
        annotation = {"id": 100 + number, "image_id": number, "regions": regions, "depth_constraint": "1-2,1-3,2-3"}
        whole["annotations"].append(annotation)
    path = folder / "COCO_amodal_val2014.json"
    path.write_text(json.dumps(whole))
    return path


def write_kins(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(0)).save(folder / "000000.png")
    polygons = shapes(0)[:2]
    annotations = [
        {
            "id": number,
            "image_id": 0,
            "category_id": 4,
            "iscrowd": 0,
            "a_segm": [polygon],
            "i_segm": run_lengths(seen),
            "segmentation": [polygon],
            "oco_id": 1,
            "ico_id": number + 1,
        }
        for number, (polygon, seen) in enumerate(zip(polygons, visible(polygons), strict=True))
    ]
    image = {"id": 0, "file_name": "000000.png", "width": WIDTH, "height": HEIGHT}
    path = folder / "update_test_2020.json"
    whole = {"images": [image], "annotations": annotations, "categories": [{"id": 4, "name": "car"}]}
    path.write_text(json.dumps(whole))
    return path


def write_synergy(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(0)).save(folder / "entity.png")
    complete, seen = drawn(shapes(0)[1]), visible(shapes(0))[1]
    ys, xs = np.nonzero(complete)
    x0, y0, x1, y1 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
    part = np.s_[y0:y1, x0:x1]
    rgba = np.dstack([photo(5), np.where(complete, 255, 0).astype(np.uint8)])[part]
    Image.fromarray(rgba).save(folder / "entity_amodal.png")
    rows: list[dict[str, Any]] = [
        {
            "filename": "entity.png",
            "image_id": 1,
            "instance_id": 0,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "captions": ["a wedge"],
            "modal_mask": run_lengths(seen[part]),
            "amodal_mask": run_lengths(complete[part]),
            "amodal_rgb": "entity_amodal.png",
        }
    ]
    board = drawn(shapes(0)[0])
    rows.append({**rows[0], "instance_id": 1, "mask": run_lengths(board)})
    path = folder / "synergy.json"
    path.write_text(json.dumps(rows))
    return path


def write_folder(folder: Path, count: int = 2) -> Path:
    for number in range(count):
        complete, seen = drawn(shapes(number)[1]), visible(shapes(number))[1]
        rgba = np.dstack([photo(number + 5), np.where(complete, 255, 0).astype(np.uint8)])
        rgba[seen, :3] = photo(number)[seen]
        kinds = {"image": photo(number), "modal": seen, "amodal": complete, "rgba": rgba}
        for kind, picture in kinds.items():
            path = folder / f"example-{number}" / f"{kind}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.astype(np.uint8) * 255 if picture.dtype == bool else picture).save(path)
    return folder
