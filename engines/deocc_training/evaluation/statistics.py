"""Estimates with their uncertainty: the bootstrap over images, and tests of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import stats

__all__ = ["Bootstrap", "Estimate", "Paired", "holm", "paired"]

CONFIDENCE = 0.95
SEED = 20  # of the resampling, so that a report can be made again
DIGITS = 6


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval (None where there is one image only), and how many examples it rests on."""

    value: float
    low: float | None
    high: float | None
    examples: int


@dataclass(frozen=True)
class Paired:
    """B against A on the same images.

    Attributes:
        difference: mean over images of B − A; each image is the mean of its examples.
        p: of Wilcoxon's signed-rank test over the images, two-sided; None where no image differs.
    """

    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    images: int


class Bootstrap:
    """Percentile bootstrap over images (Efron 1979): the objects of one photo are not independent.

    Args:
        images: of each example.
    """

    def __init__(self, images: Sequence[str], resamples: int) -> None:
        self._images = np.unique(np.asarray(images, np.str_), return_inverse=True)[1]
        self._resamples = resamples

    def ratio(self, numerators: Sequence[float], denominators: Sequence[float]) -> Estimate | None:
        """Σ numerator / Σ denominator: a mean where the denominators are 1, a pooled ratio otherwise.

        Examples with the denominator 0 do not count. None if all are 0.
        """
        over, under = np.asarray(numerators, float), np.asarray(denominators, float)
        counted = under > 0
        if not counted.any():
            return None
        _, groups = np.unique(self._images[counted], return_inverse=True)
        sums = np.stack([np.bincount(groups, values[counted]) for values in (over, under)])
        value = float(sums[0].sum() / sums[1].sum())
        low, high = _interval(sums, self._resamples)
        return Estimate(round(value, DIGITS), low, high, int(counted.sum()))


def paired(
    a: Float64[np.ndarray, n], b: Float64[np.ndarray, n], images: Sequence[str], resamples: int
) -> Paired | None:
    """NaN where an example does not count. None if none counts in both."""
    counted = ~(np.isnan(a) | np.isnan(b))
    if not counted.any():
        return None
    _, groups = np.unique(np.asarray(images, np.str_)[counted], return_inverse=True)
    size = np.bincount(groups)
    first, second = (np.bincount(groups, values[counted]) / size for values in (a, b))
    difference = second - first
    low, high = _interval(np.stack([difference, np.ones_like(difference)]), resamples)
    p = None
    if np.any(difference):
        p = float(stats.wilcoxon(second, first, zero_method="pratt").pvalue)
    return Paired(
        round(float(first.mean()), DIGITS),
        round(float(second.mean()), DIGITS),
        round(float(difference.mean()), DIGITS),
        low,
        high,
        p,
        len(difference),
    )


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) for several tests at once."""
    order = sorted((p, at) for at, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, at) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[at] = highest
    return adjusted


def _interval(sums: Float64[np.ndarray, "2 n"], resamples: int) -> tuple[float | None, float | None]:
    """Of Σ sums[0] / Σ sums[1] over n images drawn with replacement."""
    count = sums.shape[1]
    if count < 2:
        return None, None
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    totals = drawn @ sums.T
    ratios = totals[:, 0] / np.where(totals[:, 1] > 0, totals[:, 1], np.nan)
    low, high = np.nanquantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return round(float(low), DIGITS), round(float(high), DIGITS)
