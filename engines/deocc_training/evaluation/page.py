"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from deocc_training.evaluation.baselines import MASKS
from deocc_training.evaluation.figures import by_occlusion, by_samples
from deocc_training.evaluation.settings import Settings
from deocc_training.evaluation.sheets import MODAL_LINE, TRUTH_LINE, Tile
from deocc_training.evaluation.tables import BINS, FIRST, METRICS, oracle

__all__ = ["page"]

TITLES = {
    "miou": "mIoU",
    "miou_pooled": "mIoU, pooled",
    "invisible_iou": "IoU, invisible part",
    "invisible_iou_pooled": "IoU, invisible, pooled",
    "boundary_f": "boundary F",
}
TOP = ("all", "occluded")  # groups that are seen at once; the others unfold
PLAIN = Settings()
ABLATED = ("text", "preset", "steps", "guidance_image", "guidance_text", "local_strength", "draws", "keep_visible")
DIGITS = 3


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
    return template.render(
        report=report,
        sheets=sheets,
        titles=TITLES,
        metrics=list(METRICS),
        best={group: _best(answers) for group, answers in masks.items()},
        more={
            "By hidden share": [group for group in masks if group in (*BINS, "not occluded")],
            "By the data set's own groups": [group for group in masks if group not in (*TOP, *BINS, "not occluded")],
        },
        largest=oracle(settings.best_of[-1]),
        changed={name: getattr(settings, name) for name in ABLATED if getattr(settings, name) != getattr(PLAIN, name)},
        lines={"modal": MODAL_LINE, "truth": TRUTH_LINE},
        figures={
            "by_samples": by_samples(masks, settings.best_of),
            "by_occlusion": by_occlusion(masks, settings.best_of[-1]),
        },
    )


def _best(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """By metric, the answers with the largest value, as it is shown, among those that are no oracle."""
    best = {}
    for metric in METRICS:
        known = {name: one[metric] for name, one in answers.items() if one[metric] and name in (FIRST, *MASKS)}
        shown = {name: f"{one['value']:.{DIGITS}f}" for name, one in known.items()}
        best[metric] = {name for name, value in shown.items() if value == max(shown.values())}
    return best


def _estimate(value: Mapping[str, Any] | None, digits: int = DIGITS) -> Markup:
    """0.874 [0.861, 0.886], the interval in small print."""
    if value is None:
        return Markup("–")
    shown = [None if value[key] is None else f"{value[key]:.{digits}f}" for key in ("value", "low", "high")]
    if shown[1] is None:
        return Markup("{}").format(shown[0])
    return Markup("{} <small>[{}, {}]</small>").format(*shown)
