"""As many samples of one object as are wanted, whatever one request may ask for, and however busy the service is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import stamina

from deocc.client import AsyncClient
from deocc.engines import Engine
from deocc.errors import NotFound, Overloaded, ServerError, Unavailable
from deocc.images import ImageLike
from deocc.results import Completion, ModalMask, Sample

__all__ = ["SEEDS", "Drawn", "draw", "engine_of"]

SEEDS = 2**32
LONGEST_WAIT = 30.0  # seconds between two attempts, unless the service names a longer one


@dataclass(frozen=True)
class Drawn:
    """The samples of one object.

    Attributes:
        samples: sample i was drawn with seed + i.
        best: index of the sample that the service itself put first.
        seconds: the caller's wall time, waiting for room included.
        timings: the service's own seconds by stage, summed over the requests.
    """

    samples: tuple[Sample, ...]
    best: int
    modal: ModalMask
    already_whole: bool
    engine_id: str
    rim: int
    seconds: float
    timings: Mapping[str, float]


async def engine_of(client: AsyncClient, name: str | None) -> Engine:
    """The engine that requests with this `name` reach; None: the default one.

    Raises:
        NotFound: the service has no such engine.
    """
    engines = await client.engines()
    for engine in engines:
        if name in (engine.engine_id, engine.name) or (name is None and engine.is_default):
            return engine
    if len(engines) == 1 and (name is None or "/" in name):  # in process: opened by the path of its bundle
        return engines[0]
    raise NotFound(f"the service has no engine {name}", field="engine_id")


async def draw(
    client: AsyncClient, image: ImageLike, *, count: int, seed: int, limit: int, patience: float, **arguments: Any
) -> Drawn:
    """`count` samples with the seeds seed, seed + 1 … in requests of `limit` samples at most.

    Args:
        client: made with ``retries=0``: this waits itself, and longer.
        limit: the service's `max_samples`.
        patience: seconds for which refusals (no room, not there) are waited out, with growing pauses.
        arguments: of `AsyncClient.complete`.

    Raises:
        DeoccError: the last refusal when patience is over, or whatever else went wrong.
    """
    started = time.perf_counter()
    answers: list[Completion] = []
    for first in range(0, count, limit):
        ask = {"num_samples": min(limit, count - first), "seed": (seed + first) % SEEDS}
        answers.append(await _patiently(client, image, patience, {**arguments, **ask}))
    found = {(sample.seed - seed) % SEEDS: sample for answer in answers for sample in answer.samples}
    if set(found) != set(range(count)):
        raise ServerError("the service answered with samples of other seeds than were asked for")
    samples = tuple(found[index] for index in range(count))
    # Of equal scores the service's own order decides.
    chosen = max((answer.best for answer in answers), key=lambda sample: sample.score)
    timings: Counter[str] = Counter()
    for answer in answers:
        timings.update(dict(answer.timings))
    return Drawn(
        samples,
        (chosen.seed - seed) % SEEDS,
        answers[0].modal,
        answers[0].already_whole,
        answers[0].engine_id,
        answers[0].rim,
        time.perf_counter() - started,
        MappingProxyType(dict(timings)),
    )


async def _patiently(
    client: AsyncClient, image: ImageLike, patience: float, arguments: Mapping[str, Any]
) -> Completion:
    caller = stamina.AsyncRetryingCaller(None, patience, wait_initial=0.2, wait_max=LONGEST_WAIT, wait_jitter=1.0)
    return await caller(_refused, client.complete, image, **arguments)


def _refused(error: Exception) -> bool | float:
    if not isinstance(error, Overloaded | Unavailable):
        return False
    return True if error.retry_after is None else error.retry_after
