"""The segmenter looks twice: coordinates, scale and candidates survive it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from deocc_engines.prompt import Point, Prompt
from deocc_engines.segmenter import Segmenter

SIZE, CELLS = 64, 32
SIDES = (0.5, 0.25, 1.0, 0.25)  # of its answers, over the side of what it sees


@dataclass
class Squares:
    """Answers with squares around the first point, of four sizes; the second is the one it trusts."""

    shown: list[Tensor] = field(default_factory=list)
    refine_mask: None = None

    def encode(self, image: Tensor) -> Tensor:
        self.shown.append(image)
        return torch.zeros(1, 1, 1, 1)

    def decode(
        self, embedding: Tensor, coordinates: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, y = (coordinates[0, 0] + 0.5) * CELLS / SIZE
        places = torch.arange(CELLS) + 0.5
        away = torch.maximum((places - y).abs()[:, None], (places - x).abs()[None])
        logits = torch.stack([side * CELLS / 2 - away for side in SIDES])
        return logits[None], torch.tensor([[0.5, 0.9, 0.7, 0.6]])


@pytest.mark.parametrize("size", [(256, 256), (300, 160), (3000, 1600)])
def test_a_closer_look_answers_where_it_was_asked_and_finer(size: tuple[int, int]) -> None:
    width, height = size
    runtime, pixels = Squares(), np.zeros((height, width, 3), np.uint8)
    segmenter = Segmenter(runtime, SIZE, CELLS, closer=1.5)
    x, y = 0.4 * width, 0.55 * height
    embedding = segmenter.embed(pixels)
    best, large, _ = segmenter.segment_all(embedding, pixels, [Prompt((Point(x, y),))])[0]
    assert len(runtime.shown) == 2
    rows, columns = np.nonzero(best.mask)
    cell = max(size) / CELLS
    assert abs(columns.mean() + 0.5 - x) < cell
    assert abs(rows.mean() + 0.5 - y) < cell
    # a quarter of a part that is 1.5 quarters of the photo
    assert np.sqrt(best.mask.sum()) == pytest.approx(max(size) * 0.25 * 0.25 * 1.5, rel=0.2)
    assert large.mask.mean() > 0.6  # it reached beyond the part, and stays


def test_what_fills_the_photo_is_looked_at_once() -> None:
    runtime, pixels = Squares(), np.zeros((64, 64, 3), np.uint8)
    segmenter = Segmenter(runtime, SIZE, CELLS, closer=4.0)
    segmenter.segment_all(segmenter.embed(pixels), pixels, [Prompt((Point(32, 32),))])
    assert len(runtime.shown) == 1
