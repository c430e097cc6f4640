"""Several at a time, in whatever order they finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

__all__ = ["each"]

A = TypeVar("A")
R = TypeVar("R")


async def each(items: Iterable[A], work: Callable[[A], Awaitable[R]], at_once: int) -> AsyncGenerator[R, None]:
    """The results of `work`, as they come; `items` is read no faster than it is worked off.

    An error of `work` ends the whole, and so does closing the generator: what is running then is cancelled.
    """
    source = iter(items)
    running: set[asyncio.Future[R]] = set()
    exhausted = False
    try:
        while True:
            while not exhausted and len(running) < at_once:
                try:
                    running.add(asyncio.ensure_future(work(next(source))))
                except StopIteration:
                    exhausted = True
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for finished in done:
                yield finished.result()
    finally:
        for left in running:
            left.cancel()
        await asyncio.gather(*running, return_exceptions=True)
