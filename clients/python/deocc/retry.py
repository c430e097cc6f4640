"""When a call is tried again: only where the service said that there was no room, or was not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import stamina

from deocc.errors import Overloaded, Unavailable

__all__ = ["RetryPolicy"]

A = TypeVar("A")
R = TypeVar("R")

WAIT_INITIAL = 0.1  # seconds before the second attempt, doubled for every further one
WAIT_MAX = 5.0
WAIT_JITTER = 0.2


@dataclass(frozen=True)
class RetryPolicy:
    """Every call is a pure function of its request, so that trying again is always safe.

    Attributes:
        attempts: in all; 1 for no second try.
        max_wait: seconds; if the service asks for a longer wait, the error goes to the caller at once.
    """

    attempts: int = 4
    max_wait: float = 30.0

    def call(self, send: Callable[[A], R], argument: A) -> R:
        """The result of `send`, or its last error."""
        caller = stamina.RetryingCaller(
            self.attempts, None, wait_initial=WAIT_INITIAL, wait_max=WAIT_MAX, wait_jitter=WAIT_JITTER
        )
        return caller(self.backoff, send, argument)

    async def call_async(self, send: Callable[[A], Awaitable[R]], argument: A) -> R:
        """The same for asyncio."""
        caller = stamina.AsyncRetryingCaller(
            self.attempts, None, wait_initial=WAIT_INITIAL, wait_max=WAIT_MAX, wait_jitter=WAIT_JITTER
        )
        return await caller(self.backoff, send, argument)

    def backoff(self, error: Exception) -> bool | float:
        """Whether to try again after this error, or after how many seconds."""
        if not isinstance(error, Overloaded | Unavailable):  # RESOURCE_EXHAUSTED and 429, UNAVAILABLE and 503
            return False
        if error.retry_after is None:
            return True
        return error.retry_after if error.retry_after <= self.max_wait else False
