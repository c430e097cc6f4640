"""Which identities may be trained on, and which pictures are one identity.

The split is a pure function of the identity's name, so it never has to be stored, does not move when sources are added,
and every variant of one identity (skin tones, recoloured copies, crops of one wallpaper) falls on the same side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["SPLITS", "Split", "Thumbnail", "merged_identities", "split_of", "thumbnail"]

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
Thumbnail: TypeAlias = NDArray[np.uint8]  # [_CELLS * _CELLS * 4]

_ONE_IN = 10
_CELLS = 12
_LOOK_ALIKE = 4.0  # mean difference of thumbnails, of 255; below it they are one drawing with details changed


def split_of(identity: str) -> Split:
    """Return "test" for one identity in ten, by SHA-256 of its name, else "train"."""
    digest = hashlib.sha256(identity.encode("utf-8")).digest()
    return "test" if int.from_bytes(digest[:8], "big") % _ONE_IN == 0 else "train"


def thumbnail(rgba: NDArray[np.uint8]) -> Thumbnail:
    """A trimmed RGBA picture [h, w, 4] stretched to a few premultiplied cells."""
    alpha = rgba[..., 3:].astype(np.float32)
    premultiplied = np.concatenate([rgba[..., :3] * (alpha / 255), alpha], axis=2)
    small: Thumbnail = cv2.resize(premultiplied, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small.reshape(-1)


def merged_identities(identities: Sequence[str], thumbnails: NDArray[np.uint8]) -> list[str]:
    """Give pictures that look alike the first one's identity; thumbnails are uint8 [n, cells].

    Clip-art comes in families (one smiley with ten mouths, a stamp that is also in another collection), and a test on
    the brother of a training picture would be no test.
    """
    leader = {identity: identity for identity in identities}

    def lead(identity: str) -> str:
        while leader[identity] != identity:
            identity = leader[identity]
        return identity

    cells = thumbnails.astype(np.float32)
    for index, identity in enumerate(identities):
        difference = np.abs(cells[index + 1 :] - cells[index]).mean(axis=1)
        for other in np.nonzero(difference < _LOOK_ALIKE)[0]:
            leader[lead(identities[index + 1 + int(other)])] = lead(identity)
    return [lead(identity) for identity in identities]
