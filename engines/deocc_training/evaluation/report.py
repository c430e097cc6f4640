"""The report as one JSON object: figures, definitions, provenance, and the rows that they come from."""

from __future__ import annotations

import hashlib
import inspect
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from deocc import Engine
from deocc_training.evaluation import baselines, metrics, perceptual, tables
from deocc_training.evaluation.example import click
from deocc_training.evaluation.published import NOTE, PUBLISHED
from deocc_training.evaluation.row import Row
from deocc_training.evaluation.settings import Settings
from deocc_training.evaluation.statistics import Bootstrap

__all__ = [
    "FORMAT",
    "definitions",
    "failures",
    "figures_of",
    "provenance",
    "published",
    "row_values",
    "rows_digest",
    "timing",
]

FORMAT = 1
VERSIONS = ("deocc", "numpy", "opencv-python-headless", "scikit-image", "scipy", "pillow", "pycocotools")
VOLATILE = ("seconds", "timings")  # of a row: not of the result
FEATURES = {
    "best of k (oracle)": "Of the samples with the first k seeds, the one with the largest IoU with the truth.",
    tables.FIRST: "The sample that the service itself puts first; it does not know the truth.",
    "occluded": "Hidden share |truth without modal| / |truth| above the threshold of the settings.",
    "failures": "An example that the engine refused or failed on counts as an empty answer.",
    "95 % intervals": "Percentile bootstrap over images: all examples of a drawn image are drawn together.",
}


def definitions() -> dict[str, str]:
    """What every figure means, in the words of the functions that compute it."""
    functions = {
        "miou, miou_pooled, invisible_iou, invisible_iou_pooled": metrics.iou,
        "boundary_f": metrics.boundary_f,
        "visible_error": metrics.visible_error,
        "visible_kept": metrics.visible_kept,
        "psnr": metrics.hidden_psnr,
        "ssim": metrics.hidden_ssim,
        "lpips": perceptual.hidden_lpips,
        "order": tables.order_table,
        "point prompt": click,
        "inpaint (oracle shape)": baselines.inpainted,
    }
    return {**FEATURES, **baselines.MASKS, **{name: inspect.getdoc(one) or "" for name, one in functions.items()}}


def figures_of(rows: Sequence[Row], settings: Settings, occluded_above: float, resamples: int) -> dict[str, Any]:
    """All tables that need no network."""
    answers = tables.answers_of(settings)
    groups = tables.groups_of(rows, occluded_above)
    return {
        "masks": tables.mask_table(groups, answers, resamples),
        "order": tables.order_table(rows, answers, resamples),
        "appearance": tables.appearance_table(rows, resamples),
        "service": _service(rows, occluded_above, resamples),
    }


def provenance(
    dataset: Mapping[str, Any], settings: Settings, engine: Engine, rows: Sequence[Row], choices: Mapping[str, Any]
) -> dict[str, Any]:
    """What the figures depend on, and what they were made with.

    Args:
        choices: of the measurement: threshold, resamples, selection.
    """
    return {
        "engine": {
            "engine_id": engine.engine_id,  # its hash is the bundle's
            "name": engine.name,
            "licence": engine.licence,
            "runtimes": dict(engine.runtimes),
            "window": engine.window,
            "default_preset": engine.default_preset,
            "presets": {name: asdict(preset) for name, preset in engine.presets.items()},
        },
        "settings": settings.as_dict(),
        "dataset": {**dataset, "evaluated": len(rows), "evaluated_sha256": rows_digest(rows)},
        "measurement": dict(choices),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
    }


def rows_digest(rows: Sequence[Row]) -> str:
    """SHA-256 over the photos, masks and truths that were evaluated, in order."""
    return hashlib.sha256("".join(f"{row.key} {row.digest}\n" for row in rows).encode()).hexdigest()


def timing(rows: Sequence[Row]) -> dict[str, Any]:
    """Seconds of one request, as the caller waits for it; the service's own seconds by stage. Of answered ones."""
    answered = [row for row in rows if row.failure is None]
    if not answered:
        return {}
    stages = sorted({stage for row in answered for stage in row.timings})
    by_stage = {stage: [row.timings[stage] for row in answered if stage in row.timings] for stage in stages}
    return {
        "request": _quantiles([row.seconds for row in answered]),
        "stages": {stage: _quantiles(seconds) for stage, seconds in by_stage.items()},
    }


def row_values(row: Row) -> dict[str, Any]:
    """A row without what another run of the same would not give again."""
    return {key: value for key, value in row.to_json().items() if key not in VOLATILE}


def failures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{"key": row.key, "failure": row.failure, "final": row.final} for row in rows if row.failure]


def published() -> dict[str, Any]:
    named = {
        name: {dataset: {"miou": miou / 100, "fid": fid} for dataset, (miou, fid) in values.items()}
        for name, values in PUBLISHED.items()
    }
    return {"note": NOTE, "rows": named}


def _service(rows: Sequence[Row], occluded_above: float, resamples: int) -> dict[str, Any]:
    """The segmenter alone, the visible part, the verdict "already whole"."""
    bootstrap = Bootstrap([row.image for row in rows], resamples)
    measured = [row.visible_error is not None for row in rows]
    right = [row.said_whole is not None and row.said_whole == (row.occluded <= occluded_above) for row in rows]
    estimates = {
        "modal_iou": bootstrap.ratio([row.modal_iou for row in rows], [1.0] * len(rows)),
        "visible_kept": bootstrap.ratio([row.visible_kept for row in rows], [1.0] * len(rows)),
        "visible_error": bootstrap.ratio([row.visible_error or 0.0 for row in rows], [float(one) for one in measured]),
        "verdict_accuracy": bootstrap.ratio([float(one) for one in right], [1.0] * len(rows)),
    }
    return {name: None if one is None else asdict(one) for name, one in estimates.items()}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {"p50": round(float(p50), 4), "p95": round(float(p95), 4), "mean": round(float(np.mean(values)), 4)}
