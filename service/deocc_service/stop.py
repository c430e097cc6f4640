"""When the work of a request ends before its time."""

from __future__ import annotations

import threading
import time

from deocc_engines.errors import Cancelled, DeadlineExceeded

__all__ = ["Stop"]


class Stop:
    """Asked by the engine before every step; raises to end the work.

    Args:
        left: seconds from now, None for ever.
    """

    def __init__(self, left: float | None) -> None:
        self._gone = threading.Event()
        self._end = None if left is None else time.monotonic() + left

    def cancel(self) -> None:
        """The caller has left."""
        self._gone.set()

    def left(self) -> float | None:
        """Seconds."""
        return None if self._end is None else self._end - time.monotonic()

    def __call__(self) -> None:
        if self._gone.is_set():
            raise Cancelled("the caller went away")
        if self._end is not None and time.monotonic() >= self._end:
            raise DeadlineExceeded("the time for this request is over")
