"""Composites cut-outs into occluded scenes whose complete target is known exactly.

A scene is SIDE x SIDE; its picture lies in the top left `size` = (h, w) part and white fills the rest. Coordinates are
xy pixels of the scene, origin top left.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deocc_engines.image import Photo
from deocc_training.cutout import Cutout, Kind, Pixels
from deocc_training.layers import Layer, Placed, Rng, cutout_layer, degrade, shadow, shape_layer, straight
from deocc_training.splits import Split, split_of
from deocc_training.textures import Bytes, background, read_wallpaper

__all__ = ["SIDE", "Instance", "Library", "Scene", "compose"]

SIDE = 256
_KINDS: dict[Kind, float] = {"photograph": 0.4, "render": 0.4, "drawing": 0.2}
_CROWD = 60  # identities that one category may weigh; keeps people and faces from filling every scene
_MAX_OCCLUDED, _MIN_VISIBLE = 0.92, 150  # share of the target, px


@dataclass(frozen=True)
class Instance:
    """One object of a scene."""

    label: int  # its value in Scene.labels; depth order, back to front from 1
    identity: str
    caption: str
    kind: str  # a cut-out's kind, or "procedural"
    in_front: bool  # nearer than the target in depth, whether or not it covers it


@dataclass(frozen=True, eq=False)
class Scene:
    """One training example; see the module docstring for coordinates."""

    image: Pixels  # uint8 [256, 256, 3] RGB
    labels: Pixels  # uint8 [256, 256]; 0 background or shadow, i where instance i is topmost with alpha > .5
    target: Pixels  # uint8 [256, 256, 4] complete target, straight alpha, cut at the canvas; white where alpha is 0
    size: tuple[int, int]  # (h, w) of the picture inside the padding
    target_label: int
    caption: str
    kind: str
    identity: str
    occluded_fraction: float  # of the target's pixels with alpha > .5 inside the canvas
    truncated: bool  # the canvas cuts the target
    degraded: bool  # JPEG, resizing or noise was put on `image` alone
    instances: tuple[Instance, ...]  # by label

    def shown(self) -> tuple[Photo, NDArray[np.bool_], Pixels]:
        """Without the padding: the photo, the target's modal mask [h, w], the complete target [h, w, 4]."""
        height, width = self.size
        pixels = np.ascontiguousarray(self.image[:height, :width])
        modal = np.ascontiguousarray(self.labels[:height, :width] == self.target_label)
        image_id = f"sha256:{hashlib.sha256(pixels.tobytes()).hexdigest()}"
        return Photo(pixels, image_id), modal, np.ascontiguousarray(self.target[:height, :width])

    def in_front(self) -> NDArray[np.bool_]:
        """Where something nearer than the target is visible, [h, w]."""
        height, width = self.size
        nearer = [instance.label for instance in self.instances if instance.in_front]
        return np.isin(self.labels[:height, :width], nearer)


class Library:
    """The cut-outs and wallpapers of each split, drawn from by weight."""

    def __init__(self, cutouts: Sequence[Cutout], wallpapers: dict[str, Path]) -> None:
        self._variants: dict[str, list[Cutout]] = defaultdict(list)
        for cutout in cutouts:
            self._variants[cutout.identity].append(cutout)
        self._groups: dict[tuple[Split, str], list[str]] = defaultdict(list)  # by kind, and by category
        for identity, variants in self._variants.items():
            self._groups[split_of(identity), variants[0].kind].append(identity)
            self._groups[split_of(identity), variants[0].category].append(identity)
        self._weighted: dict[tuple[Split, str], tuple[list[str], NDArray[np.float64]]] = {}
        for (split, kind), identities in self._groups.items():
            if kind in _KINDS:
                sizes = [len(self._groups[split, self._variants[i][0].category]) for i in identities]
                self._weighted[split, kind] = identities, np.cumsum(np.minimum(1, _CROWD / np.array(sizes)))
        self._wallpapers = dict(sorted(wallpapers.items()))

    def draw(self, rng: Rng, split: Split) -> Cutout:
        """A cut-out by the kinds' shares, then by identity with crowded categories held down, then any variant."""
        kinds = [kind for kind in _KINDS if (split, kind) in self._weighted]
        shares = np.array([_KINDS[kind] for kind in kinds])
        identities, cumulative = self._weighted[split, kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]]
        return self._variant(rng, identities[int(np.searchsorted(cumulative, rng.random() * cumulative[-1]))])

    def draw_like(self, rng: Rng, split: Split, cutout: Cutout) -> Cutout:
        """A cut-out of the same category, possibly the same one."""
        identities = self._groups[split, cutout.category]
        return self._variant(rng, identities[int(rng.integers(len(identities)))])

    def _variant(self, rng: Rng, identity: str) -> Cutout:
        variants = self._variants[identity]
        return variants[int(rng.integers(len(variants)))]

    def wallpapers(self, split: Split) -> list[Bytes]:
        """All wallpapers of a split, uint8 RGB."""
        return [_wallpaper(path) for identity, path in self._wallpapers.items() if split_of(identity) == split]


@lru_cache(maxsize=128)
def _wallpaper(path: Path) -> Bytes:
    return read_wallpaper(path)


def _occluder(rng: Rng, library: Library, split: Split, like: Cutout, reach: float, fit: tuple[int, int]) -> Layer:
    """Something to stand in front, about `reach` pixels long."""
    choice = rng.random()
    if choice < 0.17:
        name = ("bars", "fence", "grass")[int(rng.integers(3))]
        return shape_layer(rng, library.wallpapers(split), name, int(np.clip(reach * rng.uniform(1, 1.8), 48, 256)))
    if choice < 0.30:
        name = ("blob", "board")[int(rng.integers(2))]
        return shape_layer(rng, library.wallpapers(split), name, int(np.clip(reach, 32, 256)))
    cutout = library.draw_like(rng, split, like) if choice < 0.45 else library.draw(rng, split)
    stretch = float(rng.uniform(0.25, 0.6)) if rng.random() < 0.06 else 1.0
    return cutout_layer(rng, cutout, reach, (2 * fit[0], 2 * fit[1]), stretch, bend=split == "train")


def _place_target(rng: Rng, layer: Layer, size: tuple[int, int], truncate: bool) -> Placed:
    (height, width), (rows, columns) = layer.solid.shape, size
    x, y = int(rng.integers(max(1, columns - width + 1))), int(rng.integers(max(1, rows - height + 1)))
    if truncate:
        beyond, side = rng.uniform(0.1, 0.45), int(rng.integers(4))
        if side < 2:
            x = round(-beyond * width) if side == 0 else round(columns - (1 - beyond) * width)
        else:
            y = round(-beyond * height) if side == 2 else round(rows - (1 - beyond) * height)
    return Placed(layer, x, y)


def _place_occluder(
    rng: Rng, layer: Layer, visible: NDArray[np.bool_], total: int, goal: float
) -> tuple[Placed, NDArray[np.bool_]]:
    """Of several places near the target, the one that brings its occluded fraction closest to the goal."""
    ys, xs = np.nonzero(visible)
    height, width = layer.solid.shape
    best: tuple[float, Placed] | None = None
    for _ in range(14):
        at = int(rng.integers(len(ys)))
        x = int(xs[at] - width / 2 + rng.normal(0, 0.35) * width)
        y = int(ys[at] - height / 2 + rng.normal(0, 0.35) * height)
        placed = Placed(layer, x, y)
        canvas, own = placed.on(visible)
        hidden = int(np.count_nonzero(visible[canvas] & layer.solid[own]))
        error = abs(1 - (len(ys) - hidden) / total - goal)
        if best is None or error < best[0]:
            best = error, placed
    assert best is not None
    canvas, own = best[1].on(visible)
    left = visible.copy()
    left[canvas] &= ~layer.solid[own]
    return best[1], left


def _clear_of(rng: Rng, layer: Layer, visible: NDArray[np.bool_]) -> Placed | None:
    """A place in front of the target's depth that does not touch it, if one is found."""
    height, width = layer.solid.shape
    for _ in range(12):
        x = int(rng.integers(-width // 3, visible.shape[1] - width // 2))
        y = int(rng.integers(-height // 3, visible.shape[0] - height // 2))
        placed = Placed(layer, x, y)
        canvas, own = placed.on(visible)
        if not (visible[canvas] & (layer.rgba[..., 3][own] > 0)).any():
            return placed
    return None


def compose(rng: Rng, library: Library, split: Split) -> Scene:
    """Draw one scene; the same generator state gives the same scene."""
    while True:
        scene = _attempt(rng, library, split)
        if scene is not None:
            return scene


def _attempt(rng: Rng, library: Library, split: Split) -> Scene | None:
    """One draw, or None where the target came out too hidden or too small."""
    short = int(rng.integers(160, SIDE + 1))
    size = (short, SIDE) if rng.random() < 0.5 else (SIDE, short)
    cutout = library.draw(rng, split)
    bend = split == "train"  # what is held out stays as it is
    target_layer = cutout_layer(rng, cutout, float(rng.uniform(0.25, 0.85)) * SIDE, size, bend=bend)
    truncated = bool(rng.random() < 0.1)
    target = _place_target(rng, target_layer, size, truncated)
    whole = np.zeros(size, np.bool_)
    canvas, own = target.on(whole)
    whole[canvas] = target_layer.solid[own]
    total = int(whole.sum())
    if total < 2 * _MIN_VISIBLE:
        return None

    behind = []
    for _ in range(int(rng.integers(4))):
        layer = cutout_layer(rng, library.draw(rng, split), float(rng.uniform(0.15, 0.7)) * SIDE, size, bend=bend)
        height, width = layer.solid.shape
        x = int(rng.integers(-width // 4, size[1] - 3 * width // 4 + 1))
        y = int(rng.integers(-height // 4, size[0] - 3 * height // 4 + 1))
        behind.append(Placed(layer, x, y))
    front, visible = _stand_in_front(rng, library, split, cutout, target, whole)
    occluded = 1 - int(visible.sum()) / total
    if occluded > _MAX_OCCLUDED or visible.sum() < _MIN_VISIBLE:
        return None
    return _paint(rng, library, split, size, (*behind, target, *front), len(behind), truncated)


def _stand_in_front(
    rng: Rng, library: Library, split: Split, cutout: Cutout, target: Placed, whole: NDArray[np.bool_]
) -> tuple[list[Placed], NDArray[np.bool_]]:
    """Occluders, and the part of the target they leave visible. In 15 % of the scenes they leave all of it."""
    total, reach = int(whole.sum()), max(target.layer.solid.shape)
    front: list[Placed] = []
    visible = whole
    if rng.random() < 0.15:
        near = cv2.dilate(whole.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0  # also clear of its soft rim
        for _ in range(int(rng.integers(3))):
            layer = _occluder(rng, library, split, cutout, float(rng.uniform(0.3, 0.8)) * reach, whole.shape)
            placed = _clear_of(rng, layer, near)
            front += [placed] if placed else []
        return front, visible
    goal, count = float(rng.uniform(0.02, 0.88)), int(rng.integers(1, 4))
    for index in range(count):
        now = goal * (index + 1) / count
        wanted = float(np.clip(np.sqrt(now) * reach * rng.uniform(0.75, 1.7), 24, 1.1 * SIDE))
        layer = _occluder(rng, library, split, cutout, wanted, whole.shape)
        placed, visible = _place_occluder(rng, layer, visible, total, now)
        front.append(placed)
        if visible.sum() < _MIN_VISIBLE:
            break
    return front, visible


def _paint(
    rng: Rng,
    library: Library,
    split: Split,
    size: tuple[int, int],
    layers: tuple[Placed, ...],
    at: int,
    truncated: bool,
) -> Scene:
    """Paint the layers back to front; `at` is the index of the target."""
    picture = background(rng, library.wallpapers(split), *size)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    target = np.zeros((SIDE, SIDE, 4), np.float32)
    canvas, own = layers[at].on(picture)
    target[canvas] = layers[at].layer.rgba[own]
    shadows = rng.random() < 0.5
    for index, placed in enumerate(layers):
        if shadows and rng.random() < 0.7:
            darkness = shadow(rng, placed, size)
            if index > at:  # the truth is the target unshaded, so nothing may shade its visible part
                darkness *= 1 - target[: size[0], : size[1], 3]
            picture *= 1 - darkness[..., None]
        canvas, own = placed.on(picture)
        rgba = placed.layer.rgba[own]
        picture[canvas] = picture[canvas] * (1 - rgba[..., 3:]) + rgba[..., :3]
        labels[canvas][placed.layer.solid[own]] = index + 1
    whole = target[..., 3] > 0.5
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    degraded = bool(rng.random() < 0.3)
    rounded = np.rint(np.clip(picture, 0, 255)).astype(np.uint8)
    image[: size[0], : size[1]] = degrade(rng, rounded) if degraded else rounded
    subject = layers[at].layer
    return Scene(
        image, labels, straight(target), size, at + 1, subject.caption, subject.kind, subject.identity,
        float(1 - np.count_nonzero(labels == at + 1) / np.count_nonzero(whole)), truncated, degraded,
        tuple(
            Instance(i + 1, p.layer.identity, p.layer.caption, p.layer.kind, i > at) for i, p in enumerate(layers)
        ),
    )  # fmt: skip
