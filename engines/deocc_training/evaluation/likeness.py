"""What needs networks, made from the kept pictures: FID, KID, LPIPS. Other weights need no new run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from deocc_training.evaluation.baselines import inpainted
from deocc_training.evaluation.distribution import RECIPE, crop, distances, features
from deocc_training.evaluation.example import Dataset, Example
from deocc_training.evaluation.measurement import first_rgba, on_white
from deocc_training.evaluation.networks import Network, RandomNetwork
from deocc_training.evaluation.perceptual import hidden_lpips
from deocc_training.evaluation.row import Row
from deocc_training.evaluation.statistics import Bootstrap
from deocc_training.evaluation.tables import FIRST

__all__ = ["appearance_distances", "lpips_table"]

INPAINT = "inpaint (oracle shape)"
Rgba = UInt8[np.ndarray, "h w 4"]


def appearance_distances(
    dataset: Dataset,
    rows: Sequence[Row],
    pictures: Path,
    network: Network | None,
    occluded_above: float,
    on_done: Callable[[], None],
) -> dict[str, Any]:
    """FID and KID of the first choice and the inpaint baseline, or with no weights their like under another name."""
    used = network or RandomNetwork()
    # Photos with their mask are read for both answers, one after the other.
    load = lru_cache(maxsize=2)(dataset.load)

    def seen(example: Example, _: Row) -> Rgba:
        return np.dstack([example.pixels, np.where(example.modal, 255, 0).astype(np.uint8)])

    def answered(example: Example, row: Row) -> Rgba:
        return first_rgba(row, pictures, example.modal.shape[:2])

    def filled(example: Example, _: Row) -> Rgba:
        return inpainted(example.pixels, example.modal, example.amodal)

    def crops(members: Sequence[Row], picture: Callable[[Example, Row], Rgba]) -> Iterator[UInt8[np.ndarray, "s s 3"]]:
        for row in members:
            found = crop(picture(load(row.index), row))
            on_done()
            if found is not None:
                yield found

    whole = [row for row in rows if row.occluded <= occluded_above]
    hidden = [row for row in rows if row.occluded > occluded_above]
    answered_rows = [row for row in hidden if row.picture is not None]
    real = features(used, crops(whole, seen))
    sets = {FIRST: crops(answered_rows, answered), INPAINT: crops(hidden, filled)}
    found = {name: distances(real, features(used, completed)) for name, completed in sets.items()}
    names = ("FID", "KID") if network else ("Fréchet distance", "kernel distance")
    return {
        "names": {"frechet": names[0], "kernel": names[1]},
        "is_fid": network is not None,
        "network": {"name": used.name, "sha256": used.sha256},
        "recipe": RECIPE,
        "distances": found,
    }


def lpips_table(
    dataset: Dataset,
    rows: Sequence[Row],
    pictures: Path,
    network: Network,
    resamples: int,
    on_done: Callable[[], None],
) -> dict[str, Any]:
    """LPIPS of the hidden part, first choice and inpaint baseline."""
    known = [row for row in rows if row.appearance]
    if not known:
        return {}
    values: dict[str, list[float]] = {FIRST: [], INPAINT: []}
    for row in known:
        example = dataset.load(row.index)
        on_done()
        assert example.truth is not None  # or it had no appearance
        truth, hidden = on_white(example.truth), example.amodal & ~example.modal
        answer = on_white(first_rgba(row, pictures, hidden.shape))
        baseline = on_white(inpainted(example.pixels, example.modal, example.amodal))
        for name, picture in ((FIRST, answer), (INPAINT, baseline)):
            values[name].append(hidden_lpips(network, picture, truth, hidden))
    bootstrap = Bootstrap([row.image for row in known], resamples)
    estimates = {name: bootstrap.ratio(found, [1.0] * len(found)) for name, found in values.items()}
    table = {name: None if one is None else vars(one) for name, one in estimates.items()}
    return {"network": {"name": network.name, "sha256": network.sha256}, "lpips": table}
