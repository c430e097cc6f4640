"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2

from deocc_training.evaluation.figures import by_occlusion, by_samples
from deocc_training.evaluation.settings import Settings
from deocc_training.evaluation.sheets import Tile
from deocc_training.evaluation.tables import METRICS

__all__ = ["page"]

TITLES = {
    "miou": "mIoU",
    "miou_pooled": "mIoU, pooled",
    "invisible_iou": "IoU, invisible part",
    "invisible_iou_pooled": "IoU, invisible, pooled",
    "boundary_f": "boundary F",
}


def page(report: Mapping[str, Any], sheets: Mapping[str, Sequence[Tile]]) -> str:
    """The page.

    Args:
        report: the JSON object.
        sheets: tiles by title.
    """
    settings = Settings(**report["provenance"]["settings"])
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["estimate"] = _estimate
    template = environment.from_string(files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8"))
    masks = report["masks"]
    svgs = {
        "by_samples": by_samples(masks, settings.best_of),
        "by_occlusion": by_occlusion(masks, settings.best_of[-1]),
    }
    return template.render(report=report, sheets=sheets, titles=TITLES, metrics=list(METRICS), figures=svgs)


def _estimate(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    """0.874 [0.861, 0.886]"""
    if value is None:
        return "–"
    text = f"{value['value']:.{digits}f}"
    return text if value["low"] is None else f"{text} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
