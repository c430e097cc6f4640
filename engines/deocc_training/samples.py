"""Samples made once and learnt from often: `samples.npy`, which may still be growing, and how much of it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
import typer
from jaxtyping import Float, UInt8
from numpy.random import Generator
from torch import Tensor
from tqdm import tqdm

__all__ = ["Samples", "mirrored", "recoloured", "write"]

RECOLOURED = 0.5  # share of the samples whose colour channels change places
Bytes = UInt8[np.ndarray, "b c s s"]


def _finished(folder: Path) -> int:
    path = folder / "finished.txt"
    return int(path.read_text()) if path.exists() else 0


class Samples:
    """What `write` wrote or is writing, values in [0, 1]."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._folder, self._device = folder, device
        self._stored = np.load(folder / "samples.npy", mmap_mode="r")

    def __len__(self) -> int:
        return _finished(self._folder)

    def __getitem__(self, rows: np.ndarray) -> Float[Tensor, "b c s s"]:
        return torch.from_numpy(self._stored[rows]).to(self._device).float() / 255

    def draw(self, rng: Generator, batch: int) -> Float[Tensor, "b c s s"]:
        """So many of those that are there, at random."""
        return self[np.sort(rng.integers(len(self), size=batch))]


def mirrored(samples: Float[Tensor, "b c s s"], rng: Generator) -> Float[Tensor, "b c s s"]:
    """Each left to right, or not."""
    turned = torch.from_numpy(rng.random((len(samples), 1, 1, 1)) < 0.5).to(samples.device)
    return torch.where(turned, samples.flip(3), samples)


def recoloured(samples: Float[Tensor, "b c s s"], rng: Generator, rgb: Sequence[int]) -> Float[Tensor, "b c s s"]:
    """Some with their red, green and blue in another order.

    Args:
        rgb: the first channels of the pictures among the channels.
    """
    count, channels = samples.shape[:2]
    orders = np.array(list(permutations(range(3))))
    orders = orders[np.where(rng.random(count) < RECOLOURED, rng.integers(len(orders), size=count), 0)]
    places = np.tile(np.arange(channels), (count, 1))
    for first in rgb:
        places[:, first : first + 3] = first + orders
    index = torch.from_numpy(places).to(samples.device)
    return samples.gather(1, index[:, :, None, None].expand(-1, -1, *samples.shape[2:]))


def write(folder: Path, count: int, batch: int, shape: tuple[int, int, int], make: Callable[[int], Bytes]) -> None:
    """Fills the folder, going on where an interrupted run stopped.

    Args:
        count: of samples, rounded down to whole batches.
        shape: of a sample, [c, s, s].
        make: the samples from this one on, `batch` of them; they depend on nothing else.

    Raises:
        BadParameter: the folder holds another number of samples, or others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, count = folder / "samples.npy", count - count % batch
    wanted = (count, *shape)
    stored = np.lib.format.open_memmap(path, "r+" if path.exists() else "w+", np.uint8, wanted)
    if stored.shape != wanted:  # of a file that is there, numpy takes the shape that it has
        raise typer.BadParameter(f"{path} holds {len(stored)} samples of {stored.shape[1:]}", param_hint="--count")
    for start in tqdm(range(_finished(folder), count, batch), mininterval=5.0):
        stored[start : start + batch] = make(start)
        (folder / "finished.txt").write_text(str(start + batch))
