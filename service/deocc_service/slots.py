"""Places at work for blocking calls, with a bounded queue before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from deocc_engines.errors import DeadlineExceeded, Overloaded

__all__ = ["Slots"]

T = TypeVar("T")


class Slots:
    """Runs at most `slots` calls at once, each in a thread; at most `queue` callers wait.

    A slot is free again when its thread has returned, not when its caller has gone away: two jobs never overlap on
    one slot.
    """

    def __init__(self, name: str, slots: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(slots, thread_name_prefix=name)
        self._free = asyncio.Semaphore(slots)
        self._slots = slots
        self._queue = queue
        self._waiting = 0
        self._running = 0
        self._seconds = 1.0  # a moving average of one call

    @property
    def running(self) -> int:
        """Threads at work, those of callers who have left included."""
        return self._running

    @property
    def jobs(self) -> int:
        """Those at work and those who wait."""
        return self._running + self._waiting

    async def start(self, work: Callable[[], T], left: float | None = None) -> asyncio.Future[T]:
        """Waits for a slot and starts `work`; the result or error is the future's.

        Args:
            left: seconds to wait for a slot; None: for ever.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: no slot in time.
        """
        if self._free.locked() and self._waiting >= self._queue:
            raise Overloaded("no room now; try again later", retry_after=self._backlog())
        self._waiting += 1
        try:
            async with asyncio.timeout(left):
                await self._free.acquire()
        except TimeoutError:
            raise DeadlineExceeded("the time was over before the work could start") from None
        finally:
            self._waiting -= 1
        self._running += 1
        started = time.monotonic()
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(lambda done: self._release(done, started))
        return future

    def close(self) -> None:
        """Starts nothing any more; does not wait."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _release(self, done: asyncio.Future[T], started: float) -> None:
        self._running -= 1
        self._free.release()
        self._seconds += 0.3 * (time.monotonic() - started - self._seconds)
        if not done.cancelled():
            done.exception()  # retrieved, so that asyncio does not complain when the caller has left

    def _backlog(self) -> float:
        return self._seconds * (self._waiting + 1) / self._slots

    @property
    def backlog_seconds(self) -> float:
        """What those at work and those who wait still take, at most, as measured lately."""
        return self._seconds * self.jobs / self._slots
