"""Sheets of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

__all__ = ["grid"]


def grid(pictures: Sequence[Tensor], columns: int) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures [3, s, s] in [−1, 1] (or [1, s, s]) row by row."""
    tiles = [((p.expand(3, -1, -1).permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).byte().numpy() for p in pictures]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)
