"""Scenes seen through windows: what the networks of the completer are trained on. A batch at a time, on any device.

A view is the scene resampled along rows and columns, so both are matrices and a window is two products. Training may
warp it: mirrored, stretched and bent along either axis, lit and tinted otherwise; image and truth alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.random import Generator
from torch import Tensor

from deocc_engines.window import Window
from deocc_training.bank import Picked
from deocc_training.composition import SIDE

__all__ = ["Views", "Warp", "cut", "nearest", "pictures"]

STRETCH = 0.18  # largest logarithm of the stretch of one axis
BEND = 0.3  # largest amplitude of the bends, of 1 at which a place would be torn
TINT = 0.06  # standard deviation of the mixing of colour channels
SHIFT = 0.05  # standard deviation of the brightness, of 1
WARPED = 0.8  # share of the views that are warped


@dataclass(frozen=True, eq=False)
class Views:
    """Scenes in windows of s × s model pixels, values in [0, 1]."""

    image: Float[Tensor, "b 3 s s"]
    modal: Float[Tensor, "b 1 s s"]  # share of each pixel that belongs to the visible part
    target: Float[Tensor, "b 3 s s"]  # the complete object on white
    alpha: Float[Tensor, "b 1 s s"]  # of the complete object

    def masked(self) -> Float[Tensor, "b 3 s s"]:
        """The visible part on white: x∘m + 1∘(1−m)."""
        return self.image * self.modal + (1 - self.modal)

    def hidden(self) -> Float[Tensor, "b 1 s s"]:
        """Share of each pixel that belongs to the hidden part."""
        return (self.alpha - self.modal).clamp(min=0)


@dataclass(frozen=True, eq=False)
class Warp:
    """What is done to a batch of views; axis 0 is y, 1 is x."""

    stretch: Float[Tensor, "b 2"]  # factor on the window's sides
    bend: Float[Tensor, "b 2 2"]  # amplitudes of cos πu and cos 2πu in the slope of the map of an axis onto itself
    mirrored: Float[Tensor, " b"]  # 1: left to right
    tint: Float[Tensor, "b 3 3"]
    shift: Float[Tensor, " b"]

    @classmethod
    def draw(cls, rng: Generator, batch: int, device: torch.device) -> Warp:
        """A random one for each view."""
        warped = (rng.random(batch) < WARPED).astype(np.float32)
        stretch = np.exp(rng.uniform(-STRETCH, STRETCH, (batch, 2)) * warped[:, None])
        bend = rng.uniform(-BEND, BEND, (batch, 2, 2)) * warped[:, None, None]
        tint = np.eye(3) * rng.uniform(1 - 2 * TINT, 1 + TINT, (batch, 1, 1)) + rng.normal(0, TINT, (batch, 3, 3))
        tint = np.where(warped[:, None, None] > 0, tint, np.eye(3))
        arrays = stretch, bend, rng.random(batch) < 0.5, tint, rng.normal(0, SHIFT, batch) * warped
        return cls(*(torch.from_numpy(np.asarray(array, np.float32)).to(device) for array in arrays))


def cut(picked: Picked, windows: Sequence[Window], warp: Warp | None = None) -> Views:
    """One window of each scene, all of one size, as `Window.take` cuts it; warped if wanted."""
    rows, columns, covered = _frame(picked, windows, warp)
    assert picked.target is not None
    alpha = picked.target[..., 3:].float() / 255
    layers = [_shown(picked), picked.target[..., :3].float() / 255 * alpha, picked.modal[..., None].float(), alpha]
    seen = _share(torch.cat(layers, dim=3).permute(0, 3, 1, 2), rows, columns)
    image, target, modal, alpha = torch.split(seen, [3, 3, 1, 1], dim=1)
    if warp is not None:
        image, target = (_lit(colour, part, warp) for colour, part in ((image, covered), (target, alpha)))
    return Views(
        image=(image + (1 - covered)).clamp(0, 1),
        modal=modal.clamp(0, 1),
        target=(target + (1 - alpha)).clamp(0, 1),
        alpha=alpha.clamp(0, 1),
    )


def _share(
    layers: Float[Tensor, "b c e e"], rows: Float[Tensor, "b s e"], columns: Float[Tensor, "b s e"]
) -> Float[Tensor, "b c s s"]:
    """The layers resampled."""
    if layers.is_cuda:  # exact enough for bytes, and many times as fast
        layers, rows, columns = layers.half(), rows.half(), columns.half()
    return (rows[:, None] @ layers @ columns[:, None].transpose(2, 3)).float()


def _resampling(edges: Float[Tensor, "b s1"], extent: int) -> Float[Tensor, "b s e"]:
    """What each of s cells between s + 1 edges takes from e source pixels: their means where a cell is more than one
    pixel long on the average, else interpolated at its centre, as cv2's INTER_AREA and INTER_LINEAR."""
    low, high = torch.minimum(edges[:, :-1], edges[:, 1:]), torch.maximum(edges[:, :-1], edges[:, 1:])
    pixels = torch.arange(extent, device=edges.device, dtype=edges.dtype)
    low, high = low[..., None], high[..., None]
    length = high - low
    averaged = (torch.minimum(high, pixels + 1) - torch.maximum(low, pixels)).clamp(min=0) / length
    interpolated = (1 - ((low + high) / 2 - 0.5 - pixels).abs()).clamp(min=0)
    return torch.where(length.mean(1, keepdim=True) > 1, averaged, interpolated)


def pictures(
    picked: Picked, windows: Sequence[Window], warp: Warp | None = None
) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 1 s s"]]:
    """The images alone, in [0, 1] and 0 where the picture ends, and where it does not."""
    rows, columns, covered = _frame(picked, windows, warp)
    image = _share(_shown(picked).permute(0, 3, 1, 2), rows, columns)
    return (image if warp is None else _lit(image, covered, warp)), covered


def nearest(
    picked: Picked, windows: Sequence[Window], warp: Warp | None, size: int, of: Tensor | None = None
) -> UInt8[Tensor, "b n n"]:
    """The labels (or `of`) at the centres of n × n cells of the windows; 0 where the picture ends."""
    edges = _edges(picked, windows, warp, size)
    y, x = ((axis[:, :-1] + axis[:, 1:]) / 2 for axis in edges)
    seen_y, seen_x = ((place >= 0) & (place < picked.sizes[:, axis : axis + 1]) for axis, place in enumerate((y, x)))
    y, x = (place.long().clamp(0, SIDE - 1) for place in (y, x))
    values = picked.labels if of is None else of
    found = values.gather(1, y[:, :, None].expand(-1, -1, SIDE)).gather(2, x[:, None, :].expand(-1, size, -1))
    return found * (seen_y[:, :, None] & seen_x[:, None, :])


def _frame(
    picked: Picked, windows: Sequence[Window], warp: Warp | None
) -> tuple[Float[Tensor, "b s e"], Float[Tensor, "b s e"], Float[Tensor, "b 1 s s"]]:
    """What the windows' pixels take of rows and of columns, and their share that the picture covers."""
    rows, columns = (_resampling(edges, SIDE) for edges in _edges(picked, windows, warp, windows[0].size))
    inside_y, inside_x = picked.inside()
    covered = (rows @ inside_y[:, :, None]) @ (columns @ inside_x[:, :, None]).transpose(1, 2)
    return rows, columns, covered[:, None]


def _shown(picked: Picked) -> Float[Tensor, "b e e 3"]:
    """The images, in [0, 1] and 0 where the picture ends."""
    inside_y, inside_x = picked.inside()
    return picked.image.float() / 255 * (inside_y[:, :, None] * inside_x[:, None, :])[..., None]


def _edges(
    picked: Picked, windows: Sequence[Window], warp: Warp | None, size: int
) -> tuple[Float[Tensor, "b s1"], Float[Tensor, "b s1"]]:
    """Places in the scene, y and x, of the edges of size × size cells of the windows."""
    places = torch.tensor([(w.top, w.left, w.side) for w in windows], device=picked.labels.device).float()
    u = torch.linspace(0, 1, size + 1, device=places.device)[None]
    found = []
    for axis in (0, 1):
        start, side = places[:, axis : axis + 1], places[:, 2:]
        if warp is None:
            found.append(start + side * u)
            continue
        first, second = warp.bend[:, axis, :1], warp.bend[:, axis, 1:]
        bent = u + first * torch.sin(torch.pi * u) / torch.pi + second * torch.sin(2 * torch.pi * u) / (2 * torch.pi)
        if axis == 1:
            bent = torch.where(warp.mirrored[:, None] > 0, bent.flip(1), bent)
        length = side * warp.stretch[:, axis : axis + 1]
        found.append(start + (side - length) / 2 + length * bent)
    return found[0], found[1]


def _lit(colour: Float[Tensor, "b 3 s s"], part: Float[Tensor, "b 1 s s"], warp: Warp) -> Float[Tensor, "b 3 s s"]:
    """Premultiplied colours under another light."""
    mixed = torch.einsum("bij,bjhw->bihw", warp.tint, colour) + warp.shift[:, None, None, None] * part
    return torch.minimum(mixed.clamp(min=0), part)
