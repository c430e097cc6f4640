"""The examples asked one by one, several at a time, through the public client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from deocc import AsyncClient, Engine
from deocc.batch.crew import each
from deocc.batch.draw import draw
from deocc.errors import DeoccError, Overloaded, Unavailable
from deocc_training.evaluation.example import Dataset, Example, Unfit, click
from deocc_training.evaluation.ledger import Ledger
from deocc_training.evaluation.measurement import failed_row, measured_row
from deocc_training.evaluation.row import Row
from deocc_training.evaluation.settings import Settings

__all__ = ["Asking", "ask_all"]


@dataclass(frozen=True)
class Asking:
    """How the examples are asked.

    Attributes:
        clients: examples under work at once.
        patience: seconds for which a full or absent service is waited for.
    """

    settings: Settings
    engine: Engine
    clients: int
    patience: float


async def ask_all(
    client: AsyncClient,
    dataset: Dataset,
    indices: Sequence[int],
    asking: Asking,
    ledger: Ledger,
    on_done: Callable[[], None],
) -> dict[str, str]:
    """Fills the ledger with what it lacks.

    Args:
        client: made with ``retries=0``.

    Returns:
        the examples that could not be asked, by key, and why.

    Raises:
        Overloaded, Unavailable: the service stayed so for too long. What is done is kept.
    """
    unfit: dict[str, str] = {}

    async def work(index: int) -> None:
        key = dataset.keys[index]
        try:
            if not ledger.settled(key):
                ledger.add(await _ask(client, index, await asyncio.to_thread(dataset.load, index), asking, ledger))
        except Unfit as error:
            unfit[key] = str(error)

    async with aclosing(each(indices, work, asking.clients)) as finished:
        async for _ in finished:
            on_done()
    return dict(sorted(unfit.items()))


async def _ask(client: AsyncClient, index: int, example: Example, asking: Asking, ledger: Ledger) -> Row:
    settings = asking.settings
    by_mask = settings.prompt == "mask"
    limit = asking.engine.limits
    try:
        drawn = await draw(
            client,
            example.content,
            count=settings.samples,
            seed=settings.seed,
            limit=limit.max_samples,
            patience=asking.patience,
            mask=example.modal if by_mask else None,
            points=None if by_mask else [click(example.modal)],
            text=example.text[: limit.max_text_characters] if settings.text == "name" else "",
            **settings.arguments(),
        )
        return await asyncio.to_thread(measured_row, index, example, drawn, ledger.pictures)
    except (Overloaded, Unavailable):
        raise
    except DeoccError as error:
        return await asyncio.to_thread(failed_row, index, example, error)
