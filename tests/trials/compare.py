"""The service against the same engine behind one lock and behind `@serve.batch`, in turn, in one run.

python -m tests.trials.compare [--rounds 3] [--seconds 30]

Requests arrive at random (Poisson), one in five for eight samples, whatever the servers do. First at 70 % of what the
service can do: how long until the first result. Then at one, two and four times of it, each caller with five seconds of
patience: what was answered in time. Every server does its part of every round before the next round begins.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from tests.trials.service import EXAMPLES, Service, serving

LARGE_SHARE, LARGE = 0.2, 8
PATIENCE = 5.0  # seconds
SETTLE = 3.0  # seconds between parts, for what was left behind


@dataclass
class Tally:
    """What became of the requests of one server at one load."""

    sent: int = 0
    first: dict[int, list[float]] = field(default_factory=lambda: {1: [], LARGE: []})
    whole: dict[int, list[float]] = field(default_factory=lambda: {1: [], LARGE: []})
    in_time: int = 0
    refused: int = 0
    late: int = 0


def _body(drawn: random.Random) -> dict[str, Any]:
    example = drawn.choice(json.loads((EXAMPLES / "examples.json").read_text()))
    x, y = example["point"]
    return {
        "image": {"content": base64.b64encode((EXAMPLES / example["file"]).read_bytes()).decode()},
        "prompt": {"points": [{"x": x, "y": y}]},
        "options": {
            "num_samples": LARGE if drawn.random() < LARGE_SHARE else 1,
            "seed": drawn.randrange(2**32),
        },
    }


async def _ask(client: httpx.AsyncClient, body: dict[str, Any], patience: float | None, tally: Tally) -> None:
    samples = body["options"]["num_samples"]
    headers = {"Accept": "text/event-stream, application/json;q=0.5"}
    if patience is not None:
        headers["X-Deocc-Timeout"] = f"{patience}"
    tally.sent += 1
    asked = time.monotonic()
    first = None
    try:
        async with (
            asyncio.timeout(patience),
            client.stream("POST", "/v1/complete", json=body, headers=headers) as reply,
        ):
            if reply.status_code != 200:
                tally.refused += 1
                return
            async for line in reply.aiter_lines():
                if first is None and (line == "event: sample" or not line.startswith(("event", "data", "id", ":"))):
                    first = time.monotonic() - asked if line else None
                if line == "event: error":
                    tally.refused += 1
                    return
    except (TimeoutError, httpx.HTTPError):
        tally.late += 1
        return
    took = time.monotonic() - asked
    tally.first[samples].append(first if first is not None else took)
    tally.whole[samples].append(took)
    tally.in_time += 1


async def _load(service: Service, rate: float, seconds: float, patience: float | None, seed: int, tally: Tally) -> None:
    drawn = random.Random(seed)
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=service.url, timeout=120, limits=limits) as client,
        asyncio.TaskGroup() as group,
    ):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            group.create_task(_ask(client, _body(drawn), patience, tally))
            await asyncio.sleep(drawn.expovariate(rate))
    await asyncio.sleep(SETTLE)


async def _capacity(service: Service, seconds: float) -> float:
    """Mixed requests a second with eight clients that never rest."""
    drawn, done, end = random.Random(0), 0, time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:

        async def ask_on() -> None:
            nonlocal done
            while time.monotonic() < end:
                (await client.post("/v1/complete", json=_body(drawn))).raise_for_status()
                done += 1

        started = time.monotonic()
        await asyncio.gather(*(ask_on() for _ in range(8)))
    return done / (time.monotonic() - started)


def _quantiles(values: list[float]) -> list[float] | None:
    return [round(float(np.quantile(values, q)), 2) for q in (0.5, 0.95)] if values else None


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    naive = (sys.executable, "-m", "tests.trials.naive")
    with ExitStack() as stack:
        servers = {
            "deocc --local": stack.enter_context(serving("local")),
            "one lock": stack.enter_context(serving("other", *naive, "lock")),
            "@serve.batch": stack.enter_context(serving("other", *naive, "batch")),
        }
        capacity = asyncio.run(_capacity(servers["deocc --local"], options.seconds))
        loads = {0.7: None, 1.0: PATIENCE, 2.0: PATIENCE, 4.0: PATIENCE}
        tallies = {(name, load): Tally() for load in loads for name in servers}
        for turn in range(options.rounds):
            for load, patience in loads.items():
                for name, service in servers.items():
                    tally = tallies[name, load]
                    asyncio.run(_load(service, load * capacity, options.seconds, patience, turn, tally))
    report = {
        f"{name}, {load:g}x": {
            "sent": tally.sent,
            "answered": tally.in_time,
            "refused": tally.refused,
            "late": tally.late,
            "answered_in_time_a_second": round(tally.in_time / (options.rounds * options.seconds), 2),
            "first_result_p50_p95_of_1": _quantiles(tally.first[1]),
            "first_result_p50_p95_of_8": _quantiles(tally.first[LARGE]),
            "whole_p50_p95_of_1": _quantiles(tally.whole[1]),
            "whole_p50_p95_of_8": _quantiles(tally.whole[LARGE]),
        }
        for (name, load), tally in tallies.items()
    }
    print(json.dumps({"capacity": round(capacity, 2), **report}, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
