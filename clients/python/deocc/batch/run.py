"""A manifest worked off: priors of every sample, several at a time, going on where an earlier run stopped."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from deocc.batch.check import check_limits, mask_of
from deocc.batch.crew import each
from deocc.batch.draw import draw, engine_of
from deocc.batch.manifest import Entry
from deocc.batch.priors import Layout
from deocc.client import AsyncClient
from deocc.engines import Engine
from deocc.errors import DeoccError, Overloaded, Unavailable

__all__ = ["Outcome", "Plan", "run"]

# What a sample's failure may not hide: the service is gone or full, and so it would be for all others.
FATAL = (Unavailable, Overloaded)


@dataclass(frozen=True)
class Plan:
    """How the samples are made.

    Attributes:
        seed: prior i of every sample is drawn with seed + i.
        options: further arguments of `Client.complete`; what is left out is the engine's default.
        clients: samples under work at once.
        patience: seconds for which a full or absent service is waited for.
        engine: its name; None: the default one.
        priority: as of `Client.complete`; what is finished does not depend on it.
    """

    layout: Layout
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    clients: int = 4
    patience: float = 600.0
    engine: str | None = None
    priority: str = "normal"


@dataclass(frozen=True)
class Outcome:
    """What became of one sample."""

    id: str
    made: bool = False  # in this run
    failure: str | None = None  # one sentence; None: its priors are there


async def run(
    client: AsyncClient, entries: Sequence[Entry], plan: Plan, on_outcome: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Makes what is missing.

    Args:
        client: made with ``retries=0``.
        entries: checked ones.
        on_outcome: told of every sample when it is finished, was found finished, or failed.

    Returns:
        in the order of `entries`.

    Raises:
        InvalidManifest: a sample is over the service's limits; nothing has been asked of it then.
        Overloaded, Unavailable: the service stayed so for longer than the plan's patience. What is finished is kept.
    """
    engine = await engine_of(client, plan.engine)
    await asyncio.to_thread(check_limits, entries, engine.limits)
    outcomes: dict[str, Outcome] = {}

    async def work(entry: Entry) -> Outcome:
        return await _one(client, entry, plan, engine)

    async with aclosing(each(entries, work, plan.clients)) as finished:
        async for outcome in finished:
            outcomes[outcome.id] = outcome
            on_outcome(outcome)
    return [outcomes[entry.id] for entry in entries]


async def _one(client: AsyncClient, entry: Entry, plan: Plan, engine: Engine) -> Outcome:
    layout = plan.layout
    try:
        content = await asyncio.to_thread(entry.image.read_bytes)
        mask = await asyncio.to_thread(mask_of, entry)
        asked = {"text": entry.text, **plan.options, "points": list(entry.points) or None, "box": entry.box}
        request = _digest(
            content, mask, {**asked, "seed": plan.seed, "count": layout.count, "engine": engine.engine_id}
        )
        if await asyncio.to_thread(layout.finished, entry.id, request):
            return Outcome(entry.id)
        drawn = await draw(
            client,
            content,
            mask=mask,
            count=layout.count,
            seed=plan.seed,
            limit=engine.limits.max_samples,
            patience=plan.patience,
            priority=plan.priority,
            **asked,
        )
        about = {"options": {"seed": plan.seed, "num_samples": layout.count, **_given(asked)}}
        await asyncio.to_thread(layout.write, entry.id, request, drawn, about)
    except FATAL:
        raise
    except (DeoccError, OSError) as error:
        return Outcome(entry.id, failure=f"{type(error).__name__}: {error}")
    return Outcome(entry.id, made=True)


def _digest(content: bytes, mask: bytes | None, asked: Mapping[str, Any]) -> str:
    """Names everything that the priors depend on."""
    digest = hashlib.sha256(hashlib.sha256(content).digest() + hashlib.sha256(mask or b"").digest())
    digest.update(json.dumps(_given(asked), sort_keys=True).encode())
    return digest.hexdigest()


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if value is not None}
