"""What ``deocc eval`` runs: entry points of the client's group ``deocc.local``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from deocc import AsyncClient, Engine
from deocc.batch.draw import engine_of
from deocc_training.evaluation import comparison, report
from deocc_training.evaluation.example import Dataset, InvalidDataset
from deocc_training.evaluation.ledger import Ledger
from deocc_training.evaluation.likeness import appearance_distances, lpips_table
from deocc_training.evaluation.networks import load_network
from deocc_training.evaluation.opening import open_dataset
from deocc_training.evaluation.page import page
from deocc_training.evaluation.run import Asking, ask_all
from deocc_training.evaluation.settings import Settings
from deocc_training.evaluation.sheets import chosen, tile, worst

__all__ = ["compare", "evaluate"]


class Meter(Protocol):
    """How far a run has come."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> None: ...

    def advance(self) -> None: ...


NewMeter = Callable[[str, int | None], Meter]


def evaluate(
    path: Path,
    output: Path,
    *,
    images: Path | None,
    form: str | None,
    limit: int | None,
    only: Path | None,
    settings: Mapping[str, Any],
    occluded_above: float,
    features: Path | None,
    lpips: Path | None,
    resamples: int,
    clients: int,
    patience: float,
    connection: Mapping[str, Any],
    meter: NewMeter,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Asks, measures, and writes `report.json` and `report.html` into `output`.

    Args:
        settings: fields of `Settings`.
        connection: url, grpc, local, engine and timeout of the client.

    Returns:
        where the report is, a summary, and how many examples are worth another try.

    Raises:
        InvalidInput: data set, settings, weights or folder are unfit.
        DeoccError: the service cannot be worked with. What is done is kept.
    """
    asked = Settings(**settings)
    dataset = open_dataset(path, images, form)
    indices = _selection(dataset.keys, limit, only)
    networks = [None if weights is None else load_network(weights) for weights in (features, lpips)]  # before the work
    ledger, engine, left_out = asyncio.run(_ask(dataset, indices, asked, output, clients, patience, connection, meter))
    rows = [row for row in ledger.rows() if row.key not in left_out]
    for key, why in list(left_out.items())[:5]:
        say(f"left out: {key}: {why}")
    if not rows:
        raise InvalidDataset("not a single example could be asked; the report would be empty")
    with meter("measuring", None) as measuring:
        pictures = ledger.pictures
        made: dict[str, Any] = {
            "deocc_eval": report.FORMAT,
            "provenance": report.provenance(
                dataset.description(),
                asked,
                engine,
                rows,
                {"occluded_above": occluded_above, "resamples": resamples, "selected": len(indices)},
            ),
            **report.figures_of(rows, asked, occluded_above, resamples),
            "distribution": appearance_distances(
                dataset, rows, pictures, networks[0], occluded_above, measuring.advance
            ),
            "lpips": lpips_table(dataset, rows, pictures, networks[1], resamples, measuring.advance)
            if networks[1]
            else {},
            "published": report.published(),
            "failures": report.failures(rows),
            "left_out": left_out,
            "definitions": report.definitions(),
            "rows": [report.row_values(row) for row in rows],
            # The only part that another run of the same does not give again.
            "run": {"timing": report.timing(rows), "clients": clients, "endpoint": _endpoint(connection)},
        }
    sheets = {
        "Results by index: the first ones": [tile(dataset, row, pictures) for row in chosen(rows)],
        "Worst cases": [tile(dataset, row, pictures) for row in worst(rows, occluded_above)],
    }
    targets = {"json": output / "report.json", "html": output / "report.html"}
    targets["json"].write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    targets["html"].write_text(page(made, sheets), encoding="utf-8")
    unfinished = sum(1 for row in rows if row.failure and not row.final)
    summary = {"examples": len(rows), "failures": len(made["failures"]), "left_out": len(left_out)}
    return {
        **{name: str(target) for name, target in targets.items()},
        "summary": {**summary, "masks": made["masks"]},
        "unfinished": unfinished,
    }


def compare(first: Path, second: Path, output: Path | None) -> dict[str, Any]:
    """Paired tests of two reports.

    Raises:
        OSError, InvalidInput: they cannot be read, or are not of the same examples.
    """
    found = comparison.compared(comparison.read_report(first), comparison.read_report(second))
    if output is not None:
        output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return {**found, "table": comparison.table_text(found)}


async def _ask(
    dataset: Dataset,
    indices: Sequence[int],
    settings: Settings,
    output: Path,
    clients: int,
    patience: float,
    connection: Mapping[str, Any],
    meter: NewMeter,
) -> tuple[Ledger, Engine, dict[str, str]]:
    """Everything asked; the ledger is closed, its rows stay."""
    url, arguments = connection["url"], {key: value for key, value in connection.items() if key != "url"}
    async with AsyncClient(url, **arguments, retries=0) as client:
        engine = await engine_of(client, None if connection["local"] else connection["engine"])
        plan = {
            "format": report.FORMAT,
            "engine": engine.engine_id,
            "settings": settings.as_dict(),
            "dataset": dataset.description(),
            "selected": [dataset.keys[index] for index in indices],
        }
        ledger = Ledger(output, plan)
        try:
            with meter("completing", len(indices)) as bar:
                asking = Asking(settings, engine, clients, patience)
                left_out = await ask_all(client, dataset, indices, asking, ledger, bar.advance)
        finally:
            ledger.close()
    return ledger, engine, left_out


def _selection(keys: Sequence[str], limit: int | None, only: Path | None) -> list[int]:
    """Indices of the examples to take, in order."""
    if only is None:
        return list(range(len(keys)))[:limit]
    at = {key: index for index, key in enumerate(keys)}
    try:
        named = json.loads(only.read_text(encoding="utf-8"))
        indices = [one if isinstance(one, int) else at[one] for one in named]
        if not all(0 <= index < len(keys) for index in indices):
            raise IndexError
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InvalidDataset(f"{only} is not a JSON list of keys or indices of this data set: {error}") from error
    return sorted(set(indices))[:limit]


def _endpoint(connection: Mapping[str, Any]) -> str:
    return str(connection["url"] or connection["grpc"] or "in process")
