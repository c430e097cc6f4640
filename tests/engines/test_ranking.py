"""Of several samples the one that the others bear out comes first."""

from __future__ import annotations

import numpy as np

from deocc_engines.completion import Sample
from deocc_engines.mask import bounding_box
from deocc_engines.ranking import ranked


def sample_of(mask: np.ndarray, seed: int, score: float = 0.5, whole: float | None = None) -> Sample:
    patch = np.zeros((*mask.shape, 4), np.uint8)
    return Sample(patch, mask, 0, 0, (mask.shape[1], mask.shape[0]), bounding_box(mask), seed, score, 0.5, whole)


def shape_of(width: int) -> np.ndarray:
    mask = np.zeros((40, 40), bool)
    mask[10:20, 5 : 5 + width] = True
    return mask


def test_the_outlier_comes_last_however_sure_it_is() -> None:
    modal = shape_of(5)
    samples = [sample_of(shape_of(34), 0, 0.6), sample_of(shape_of(12), 1), sample_of(shape_of(14), 2)]
    found = ranked(samples, modal)
    assert [sample.seed for sample in found] == [2, 1, 0]
    assert [sample.score for sample in found] == sorted((sample.score for sample in found), reverse=True)


def test_a_refiners_verdict_counts_alike_for_all() -> None:
    samples = [sample_of(shape_of(12), seed, seed / 4, whole) for seed, whole in enumerate((0.9, 0.5, 0.0))]
    assert [(s.seed, s.score) for s in ranked(samples, shape_of(5))] == [(2, 0.75), (1, 0.625), (0, 0.5)]


def test_samples_that_hide_nothing_agree_and_one_keeps_its_score() -> None:
    modal = shape_of(10)
    assert [s.score for s in ranked([sample_of(modal, 0), sample_of(modal, 1)], modal)] == [0.5, 0.5]
    assert ranked([sample_of(shape_of(20), 3)], modal)[0].score == 0.5
