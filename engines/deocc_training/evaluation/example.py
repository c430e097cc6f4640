"""One object of a data set: what is asked, what is true, and what is known of its neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, UInt8

from deocc.errors import InvalidInput
from deocc_engines.mask import depth

__all__ = ["Dataset", "Example", "InvalidDataset", "Unfit", "click"]


class InvalidDataset(InvalidInput):
    """The data set cannot be read as what it should be."""


class Unfit(Exception):
    """One example cannot be asked: its picture is missing, or nothing of it is visible. It is left out and reported."""


@dataclass(frozen=True, eq=False)
class Example:
    """All masks have the image's size; the image is upright, or else in the annotation's frame.

    Attributes:
        key: unique in the data set, and the same in every run.
        image: names the photo; the bootstrap draws photos, not objects.
        content: the photo encoded, as it is sent.
        pixels: the same photo decoded.
        modal, amodal: what is visible, and the complete shape.
        front: visible parts of whatever is known to stand in front of it.
        neighbours: visible parts of the objects, by key, whose order towards this one is known.
        in_front: True for those neighbours that stand in front of it.
        truth: the complete object as RGBA, where it is known.
        text: what it is called.
        groups: of the report, e.g. "things".
    """

    key: str
    image: str
    content: bytes
    pixels: UInt8[np.ndarray, "h w 3"]
    modal: Bool[np.ndarray, "h w"]
    amodal: Bool[np.ndarray, "h w"]
    front: Bool[np.ndarray, "h w"]
    neighbours: Mapping[str, Bool[np.ndarray, "h w"]] = field(default_factory=dict)
    in_front: Mapping[str, bool] = field(default_factory=dict)
    truth: UInt8[np.ndarray, "h w 4"] | None = None
    text: str = ""
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = {array.shape[:2] for array in (self.pixels, self.modal, self.amodal, self.front)}
        sizes |= set() if self.truth is None else {self.truth.shape[:2]}
        if len(sizes) > 1:
            raise Unfit(f"the picture and its masks are of different sizes: {sorted(sizes)}")
        if not self.modal.any():
            raise Unfit("nothing of it is visible")
        if not self.amodal.any():
            raise Unfit("its complete shape is empty")

    def digest(self) -> str:
        """SHA-256 of everything that is asked and compared."""
        digest = hashlib.sha256(self.key.encode())
        digest.update(hashlib.sha256(self.content).digest())
        for mask in (self.modal, self.amodal):
            digest.update(np.packbits(mask).tobytes())
        if self.truth is not None:
            digest.update(np.ascontiguousarray(self.truth).tobytes())
        return digest.hexdigest()


class Dataset(Protocol):
    """Examples, read when they are asked for, from several threads at once."""

    @property
    def keys(self) -> Sequence[str]:
        """Of all examples, in order."""
        ...

    def load(self, index: int) -> Example:
        """Raises Unfit."""
        ...

    def description(self) -> dict[str, Any]:
        """What it is, with hashes of its annotations; no paths, so that it is the same on every machine."""
        ...


def click(modal: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """xy of the point prompt: the middle of the visible pixel farthest from the visible part's edge.

    Of several such pixels the first in reading order. The image's border does not count as an edge.
    """
    y, x = np.unravel_index(int(np.argmax(depth(modal))), modal.shape)
    return float(x) + 0.5, float(y) + 0.5
