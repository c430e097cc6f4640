"""Tiny cut-outs drawn here, so that nothing is downloaded."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def drawn(number: int) -> NDArray[np.uint8]:
    """A solid two-coloured picture, uint8 RGBA, different for every number."""
    rng = np.random.default_rng(number)
    rgba = np.full((90, 120, 4), (255, 255, 255, 0), np.uint8)
    colour = [int(c) for c in rng.integers(40, 220, 3)]
    cv2.ellipse(rgba, (60, 45), (55, int(rng.integers(20, 42))), 0, 0, 360, (*colour, 255), -1)
    cv2.circle(rgba, (45, 45), 16, (*(255 - c for c in colour), 255), -1)
    return rgba
