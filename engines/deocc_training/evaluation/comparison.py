"""Two reports side by side: is the second one better, or is it chance?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from deocc_training.evaluation.example import InvalidDataset
from deocc_training.evaluation.report import FORMAT
from deocc_training.evaluation.row import Row
from deocc_training.evaluation.statistics import holm, paired
from deocc_training.evaluation.tables import METRICS

__all__ = ["compared", "read_report", "table_text"]

RESAMPLES = 2000
PAIRED = ("miou", "invisible_iou", "boundary_f")


def compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """First choices, paired by example; p by Wilcoxon's signed-rank test over images, corrected by Holm.

    Raises:
        InvalidDataset: the reports are not of the same examples.
    """
    rows_a, rows_b = ({row["key"]: row for row in report["rows"]} for report in (a, b))
    both = [key for key in rows_a if key in rows_b]
    changed = [key for key in both if rows_a[key]["digest"] != rows_b[key]["digest"]]
    if not both or changed:
        raise InvalidDataset(
            f"the reports are of different examples: {len(both)} in common, {len(changed)} of them with other pixels"
        )
    pairs = [(_row(rows_a[key]), _row(rows_b[key])) for key in both]
    threshold = float(a["provenance"]["measurement"]["occluded_above"])
    groups: dict[str, Callable[[Row], bool]] = {"all": lambda _: True, "occluded": lambda row: row.occluded > threshold}
    found = []
    for group, belongs in groups.items():
        members = [pair for pair in pairs if belongs(pair[0])]
        for metric in PAIRED if members else ():
            first, second = (np.array([_value(metric, pair[side]) for pair in members]) for side in (0, 1))
            result = paired(first, second, [pair[0].image for pair in members], RESAMPLES)
            if result is not None:
                found.append({"group": group, "metric": metric, **asdict(result)})
    for one, corrected in zip(found, holm([one["p"] for one in found]), strict=True):
        one["p_holm"] = corrected
    settings = [report["provenance"]["settings"] for report in (a, b)]
    return {
        "a": a["provenance"]["engine"]["engine_id"],
        "b": b["provenance"]["engine"]["engine_id"],
        "examples": len(both),
        "only_in_a": len(rows_a) - len(both),
        "only_in_b": len(rows_b) - len(both),
        "settings": {
            key: [one.get(key) for one in settings] for key in settings[0] if settings[0][key] != settings[1].get(key)
        },
        "results": found,
    }


def read_report(path: Path) -> dict[str, Any]:
    """Raises InvalidDataset for what is no report."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["deocc_eval"] != FORMAT:
            raise InvalidDataset(f"{path} is a report of format {report['deocc_eval']}, not {FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDataset(f"{path} is not a report of deocc eval") from error
    return dict(report)


def table_text(comparison: Mapping[str, Any]) -> str:
    """For a terminal."""
    lines = [f"A: {comparison['a']}", f"B: {comparison['b']}", f"{comparison['examples']} examples in both"]
    lines += [f"{key}: {a} in A, {b} in B" for key, (a, b) in comparison["settings"].items()]
    lines.append(
        f"{'group':10} {'metric':14} {'A':>8} {'B':>8} {'B − A':>9}  {'95 % interval':20} {'p (Holm)':>9}  images"
    )
    for one in comparison["results"]:
        interval = "–" if one["low"] is None else f"[{one['low']:+.4f}, {one['high']:+.4f}]"
        p = "–" if one["p_holm"] is None else f"{one['p_holm']:.2g}"
        lines.append(
            f"{one['group']:10} {one['metric']:14} {one['a']:8.4f} {one['b']:8.4f} {one['difference']:+9.4f}  "
            f"{interval:20} {p:>9}  {one['images']}"
        )
    return "\n".join(lines)


def _row(value: Mapping[str, Any]) -> Row:
    return Row.from_json(value)


def _value(metric: str, row: Row) -> float:
    over, under = METRICS[metric](row, row.chosen())
    return over / under if under else float("nan")
