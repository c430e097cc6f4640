"""Rows into tables: every answer, in every group, by every metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from deocc_training.evaluation.baselines import MASKS
from deocc_training.evaluation.metrics import Overlap
from deocc_training.evaluation.row import Row
from deocc_training.evaluation.settings import Settings
from deocc_training.evaluation.statistics import Bootstrap

__all__ = [
    "BINS",
    "FIRST",
    "METRICS",
    "Answer",
    "answers_of",
    "appearance_table",
    "groups_of",
    "mask_table",
    "order_table",
]

Answer = Callable[[Row], Overlap]

FIRST = "first choice"
# Hidden share of the complete shape: above the first bound, up to the second.
BINS = {"0-10 %": (0.0, 0.1), "10-50 %": (0.1, 0.5), "50-90 %": (0.5, 0.9), "90-100 %": (0.9, 1.0)}
Fraction = tuple[float, float]
# Numerator and denominator of each example; a denominator of 0 leaves it out.
METRICS: Mapping[str, Callable[[Row, Overlap], Fraction]] = {
    "miou": lambda row, answer: (answer.iou, 1),
    "miou_pooled": lambda row, answer: (answer.intersection, answer.union),
    "invisible_iou": lambda row, answer: (
        answer.hidden_intersection / max(answer.hidden_union, 1),
        float(row.hidden > 0),
    ),
    "invisible_iou_pooled": lambda row, answer: (
        answer.hidden_intersection,
        answer.hidden_union if row.hidden > 0 else 0,
    ),
    "boundary_f": lambda row, answer: (answer.boundary_f, 1),
}


def answers_of(settings: Settings) -> dict[str, Answer]:
    """The service's first choice, the oracles, and the baselines, by name."""
    answers: dict[str, Answer] = {FIRST: lambda row: row.chosen()}
    for count in settings.best_of:
        answers[oracle(count)] = lambda row, count=count: row.best_of(count)  # type: ignore[misc]
    for name in MASKS:
        answers[name] = lambda row, name=name: row.baselines[name]  # type: ignore[misc]
    return answers


def oracle(count: int) -> str:
    return f"best of {count} (oracle)"


def groups_of(rows: Sequence[Row], occluded_above: float) -> dict[str, list[Row]]:
    """All, occluded and not, by bins of the hidden share, and by the data set's own groups; none is empty."""
    occluded = [row for row in rows if row.occluded > occluded_above]
    groups = {"all": list(rows), "occluded": occluded}
    for name, (low, high) in BINS.items():
        groups[name] = [row for row in occluded if low < row.occluded <= high]
    groups["not occluded"] = [row for row in rows if row.occluded <= occluded_above]
    for name in sorted({group for row in rows for group in row.groups}):
        groups[name] = [row for row in rows if name in row.groups]
        groups[f"{name}, occluded"] = [row for row in occluded if name in row.groups]
    return {name: members for name, members in groups.items() if members}


def mask_table(
    groups: Mapping[str, Sequence[Row]], answers: Mapping[str, Answer], resamples: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """{group: {answer: {metric: estimate}}}"""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for group, rows in groups.items():
        bootstrap = Bootstrap([row.image for row in rows], resamples)
        table[group] = {
            name: {metric: _estimate(bootstrap, rows, answer, fraction) for metric, fraction in METRICS.items()}
            for name, answer in answers.items()
        }
    return table


def order_table(rows: Sequence[Row], answers: Mapping[str, Answer], resamples: int) -> dict[str, Any]:
    """Occlusion-order accuracy (after Zhan et al., CVPR 2020, where completions reveal the order).

    Of two objects whose order is known, the one whose completion reaches farther (in pixels) into the visible part of
    the other is said to be behind. A pair counts as wrong where neither reaches into the other; *decided* is the share
    of the others. Pairs of which one object was not evaluated do not count.
    """
    by_key = {row.key: row for row in rows}
    pairs = [
        (row, by_key[other], in_front)
        for row in rows
        for other, in_front in row.in_front.items()
        if row.key < other and other in by_key and row.key in by_key[other].in_front
    ]
    if not pairs:
        return {}
    bootstrap = Bootstrap([row.image for row, _, _ in pairs], resamples)
    table: dict[str, Any] = {}
    for name, answer in answers.items():
        reach = [(answer(a).over.get(b.key, 0), answer(b).over.get(a.key, 0)) for a, b, _ in pairs]
        right = [float(i != j and (i > j) == front) for (i, j), (_, _, front) in zip(reach, pairs, strict=True)]
        ones = [1.0] * len(pairs)
        table[name] = {
            "accuracy": _dict(bootstrap.ratio(right, ones)),
            "decided": _dict(bootstrap.ratio([float(i != j) for i, j in reach], ones)),
        }
    return table


def appearance_table(rows: Sequence[Row], resamples: int) -> dict[str, dict[str, Any]]:
    """PSNR and SSIM of the hidden part, of the first choice and of the inpaint baseline."""
    known = [row for row in rows if row.appearance]
    if not known:
        return {}
    bootstrap = Bootstrap([row.image for row in known], resamples)
    table: dict[str, dict[str, Any]] = {}
    for name, key in ((FIRST, "first"), ("inpaint (oracle shape)", "inpaint")):
        table[name] = {}
        for metric in ("psnr", "ssim"):
            values = [row.appearance[key][metric] for row in known]
            counted = [float(value is not None) for value in values]
            table[name][metric] = _dict(bootstrap.ratio([value or 0.0 for value in values], counted))
    return table


def _estimate(
    bootstrap: Bootstrap, rows: Sequence[Row], answer: Answer, fraction: Callable[[Row, Overlap], Fraction]
) -> dict[str, Any] | None:
    fractions = [fraction(row, answer(row)) for row in rows]
    return _dict(bootstrap.ratio([over for over, _ in fractions], [under for _, under in fractions]))


def _dict(estimate: Any) -> dict[str, Any] | None:
    return None if estimate is None else asdict(estimate)
