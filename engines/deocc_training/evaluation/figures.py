"""The paper's two figures from our numbers, as SVG to be put into the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deocc_training.evaluation.baselines import MASKS
from deocc_training.evaluation.tables import BINS, FIRST, oracle

__all__ = ["by_occlusion", "by_samples"]

Table = Mapping[str, Mapping[str, Mapping[str, Any]]]
SIZE = (6.4, 3.6)  # inches
GREYS = ("0.45", "0.6", "0.75")
COLOURS = {"first": "tab:blue", "oracle": "tab:orange"}


def by_samples(table: Table, counts: Sequence[int]) -> str:
    """mIoU of the best of k samples over k, with 95 % intervals; first choice and baselines as lines."""
    groups = [group for group in ("all", "occluded") if group in table]
    figure = Figure(figsize=(SIZE[0] * (0.7 * len(groups) + 0.3), SIZE[1]), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        best = [table[group][oracle(count)]["miou"] for count in counts]
        values = [estimate["value"] for estimate in best]
        low = [estimate["value"] if estimate["low"] is None else estimate["low"] for estimate in best]
        high = [estimate["value"] if estimate["high"] is None else estimate["high"] for estimate in best]
        axes.plot(counts, values, "o-", color=COLOURS["oracle"], label="best of k (oracle)")
        axes.fill_between(counts, low, high, color=COLOURS["oracle"], alpha=0.2, linewidth=0)
        axes.axhline(table[group][FIRST]["miou"]["value"], color=COLOURS["first"], label=FIRST)
        for name, grey, dashes in zip(MASKS, GREYS, ("--", "-.", ":"), strict=True):
            axes.axhline(table[group][name]["miou"]["value"], color=grey, linestyle=dashes, label=name)
        axes.set(title=group, xlabel="samples k", ylabel="mIoU")
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.grid(alpha=0.3)
    _legend(figure)
    return _svg(figure)


def by_occlusion(table: Table, most: int) -> str:
    """mIoU and IoU of the invisible part by hidden share, with 95 % intervals."""
    bins = [name for name in BINS if name in table]
    if not bins:
        return ""
    figure = Figure(figsize=(SIZE[0] * 1.8, SIZE[1]), layout="constrained")
    names = [FIRST, oracle(most), *MASKS]
    colours = [COLOURS["first"], COLOURS["oracle"], *GREYS]
    for axes, metric, title in zip(
        figure.subplots(1, 2), ("miou", "invisible_iou"), ("mIoU", "IoU of the invisible part"), strict=True
    ):
        for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
            _bars(axes, [table[group][name][metric] for group in bins], number, len(names), colour, name)
        labels = [f"{group}\n(n = {table[group][FIRST]['miou']['examples']})" for group in bins]
        axes.set_xticks(range(len(bins)), labels)
        axes.set(title=title, xlabel="hidden share", ylim=(0, 1))
        axes.grid(axis="y", alpha=0.3)
    _legend(figure)
    return _svg(figure)


def _legend(figure: Figure) -> None:
    """One for all axes, beside them."""
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")


def _bars(
    axes: Axes, estimates: Sequence[Mapping[str, Any] | None], number: int, count: int, colour: str, name: str
) -> None:
    width = 0.8 / count
    for at, estimate in enumerate(estimates):
        if estimate is None:
            continue
        x = at + (number - (count - 1) / 2) * width
        axes.bar(x, estimate["value"], width, color=colour, label=name if at == 0 else None)
        if estimate["low"] is not None:
            axes.plot([x, x], [estimate["low"], estimate["high"]], color="black", linewidth=0.8)


def _svg(figure: Figure) -> str:
    """The <svg> element alone; the same bytes for the same numbers."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "deocc", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
