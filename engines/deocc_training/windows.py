"""Where the windows of a completion lie in a scene, and how far off they may be placed."""

from __future__ import annotations

from numpy.random import Generator

from deocc_engines.prompt import Box
from deocc_engines.window import Window

__all__ = ["GLOBAL_MARGIN", "global_window", "local_window"]

GLOBAL_MARGIN = 2.0  # side of the global window over the longer side of the modal box
# Windows are placed around boxes that err: training sees them displaced and resized by as much.
BOX_JITTER = 0.08


def global_window(modal: Box, width: int, height: int, size: int, rng: Generator | None = None) -> Window:
    """Around the visible part, wide enough for the complete object in 98 % of scenes; jittered if `rng` is given."""
    return Window.around(_jittered(modal, rng), width, height, size, GLOBAL_MARGIN)


def local_window(amodal: Box, width: int, height: int, size: int, rng: Generator | None = None) -> Window:
    """Around the complete object; displaced as a predicted box would be, if `rng` is given."""
    return Window.around(_jittered(amodal, rng), width, height, size)


def _jittered(box: Box, rng: Generator | None) -> Box:
    if rng is None:
        return box
    reach = BOX_JITTER * max(box.x_max - box.x_min, box.y_max - box.y_min)
    left, top, right, bottom = rng.uniform(-reach, reach, 4).tolist()
    return Box(box.x_min + left, box.y_min + top, box.x_max + right, box.y_max + bottom)
