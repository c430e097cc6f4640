from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from deocc_training.cutout import Cutout, Kind
from deocc_training.scenes import Library
from tests.training.cutouts import drawn


@pytest.fixture
def library(tmp_path: Path) -> Library:
    kinds: tuple[Kind, ...] = ("photograph", "render", "drawing")
    cutouts = []
    for number in range(60):
        path = tmp_path / f"{number}.png"
        assert cv2.imwrite(str(path), drawn(number)[..., [2, 1, 0, 3]])
        identity = f"drawn/eggs/{number}"
        cutouts.append(Cutout("drawn", identity, kinds[number % 3], f"egg {number}", path))
    return Library(cutouts, {})
