"""Which identities may be trained on.

The split is a pure function of the identity's name, so it never has to be stored, does not move when sources are added,
and every variant of one identity (skin tones, mirrored stamps, crops of one wallpaper) falls on the same side.
"""

from __future__ import annotations

import hashlib
from typing import Literal

__all__ = ["SPLITS", "Split", "split_of"]

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

_ONE_IN = 10


def split_of(identity: str) -> Split:
    """Return "test" for one identity in ten, by SHA-256 of its name, else "train"."""
    digest = hashlib.sha256(identity.encode("utf-8")).digest()
    return "test" if int.from_bytes(digest[:8], "big") % _ONE_IN == 0 else "train"
