"""Scenes where they are trained on: on one device, picked in batches there.

On a GPU the scenes are copied to the card; on a CPU the memory-mapped files are read in place. A set that is still
being built may be opened: what has been finished since is taken in while scenes are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.random import Generator
from torch import Tensor

from deocc_engines.prompt import Box
from deocc_training.composition import SIDE
from deocc_training.scenes import finished_chunks, is_finished, open_arrays

__all__ = ["Picked", "SceneBank", "open_banks"]

COLUMNS = ("image", "labels", "target")
CHUNKS_A_LOOK = 8  # taken in at once, so that a step is not held up for long
DRAWS_A_LOOK = 20


@dataclass(frozen=True, eq=False)
class Picked:
    """Some scenes of a bank, on its device."""

    image: UInt8[Tensor, "b e e 3"]
    labels: UInt8[Tensor, "b e e"]
    target: UInt8[Tensor, "b e e 4"] | None  # None in a bank without that column
    target_label: Int[Tensor, " b"]
    sizes: Int[Tensor, "b 2"]  # (h, w) of the picture inside the padding
    extents: Sequence[tuple[int, int]]  # the same as (w, h), on the host
    boxes: Sequence[tuple[Box, Box]]  # of the visible part and of the complete target
    captions: Sequence[str]

    @property
    def modal(self) -> Bool[Tensor, "b e e"]:
        """Where the target is visible."""
        return self.labels == self.target_label[:, None, None]

    def inside(self) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b e"]]:
        """1 for the rows and for the columns of the picture, 0 for those of the padding."""
        places = torch.arange(SIDE, device=self.labels.device)
        return (places < self.sizes[:, :1]).float(), (places < self.sizes[:, 1:]).float()


class SceneBank:
    """The scenes of a directory that `scenes build` writes or has written.

    Args:
        columns: what is needed of "image", "labels" and "target".
    """

    def __init__(self, path: Path, device: str = "cpu", columns: Sequence[str] = COLUMNS) -> None:
        self.device = torch.device(device)
        self._path, self._columns = path, columns
        self._files = open_arrays(path, columns)
        self._stored = {
            name: torch.from_numpy(array)
            if device == "cpu"
            else torch.empty(array.shape, dtype=torch.uint8, device=device)
            for name, array in self._files.items()
        }
        self._meta: list[dict[str, Any]] = []
        self._rows: list[int] = []
        self._taken: set[int] = set()
        self._whole, self._draws = False, 0
        while self._look():
            pass
        if not self._rows:
            raise FileNotFoundError(f"no finished scenes in {path}")

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, rng: Generator, batch: int, much_hidden: float = 0.0) -> Picked:
        """Random scenes.

        Args:
            much_hidden: share of them that are, of two random ones, the one whose target is hidden more.
        """
        self._draws += 1
        if not self._whole and self._draws % DRAWS_A_LOOK == 0:
            self._look()
        one, other = rng.integers(len(self), size=(2, batch))
        hidden = np.array([[self._meta[i]["occluded_fraction"] for i in pair] for pair in zip(one, other, strict=True)])
        better = (rng.random(batch) < much_hidden) & (hidden[:, 1] > hidden[:, 0])
        return self.pick(np.where(better, other, one))

    def pick(self, indices: np.ndarray) -> Picked:
        """Scenes by index; in a set that is still being built, in the order in which they were taken in."""
        metas = [self._meta[i] for i in indices]
        rows = torch.tensor([self._rows[i] for i in indices], device=self.device)
        columns = {name: stored.index_select(0, rows) for name, stored in self._stored.items()}
        return Picked(
            image=columns["image"],
            labels=columns["labels"],
            target=columns.get("target"),
            target_label=torch.tensor([meta["target_label"] for meta in metas], device=self.device),
            sizes=torch.tensor([meta["size"] for meta in metas], device=self.device),
            extents=[(meta["size"][1], meta["size"][0]) for meta in metas],
            boxes=[meta["boxes"] for meta in metas],
            captions=[meta["caption"] for meta in metas],
        )

    def _look(self) -> int:
        """Takes in a few finished chunks of scenes; how many there were."""
        whole = is_finished(self._path)
        fresh = [chunk for chunk in finished_chunks(self._path) if chunk.start not in self._taken][:CHUNKS_A_LOOK]
        for chunk in fresh:
            for meta in chunk.read():
                meta["boxes"] = tuple(Box(*box) for box in meta["boxes"])
                self._meta.append(meta)
            self._rows += range(chunk.start, chunk.stop)
            self._taken.add(chunk.start)
            if self.device.type != "cpu":
                for name, file in self._files.items():
                    part = torch.from_numpy(np.ascontiguousarray(file[chunk.start : chunk.stop]))
                    self._stored[name][chunk.start : chunk.stop].copy_(part)
        self._whole = whole and not fresh
        return len(fresh)


def open_banks(
    train: Path, held_out: Path, device: str, columns: Sequence[str] = COLUMNS
) -> tuple[SceneBank, SceneBank]:
    """What is trained on, and what the sample sheets show."""
    bank = SceneBank(train, device, columns)
    return bank, bank if held_out == train else SceneBank(held_out, device, columns)
