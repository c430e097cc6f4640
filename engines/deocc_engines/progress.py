"""What a caller hears while a request is at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from deocc_engines.completion import Event, Progress, Stage, StageDone

__all__ = ["Teller"]


class Teller:
    """Tells the caller of what its samples do, one event at a time.

    Args:
        steps: of all samples and stages.
    """

    def __init__(self, on_event: Callable[[Event], None], steps: int) -> None:
        self._on_event, self._steps, self._done = on_event, steps, 0
        self._lock = threading.Lock()  # samples of one request run in several threads

    def tell(self, event: Event) -> None:
        """Any event."""
        with self._lock:
            self._on_event(event)

    def stepped(self, stage: Stage, index: int, done: int, planned: int) -> None:
        """Sample `index` is one step further in its stage."""
        with self._lock:
            self._done += 1
            self._on_event(Progress(stage, index, done, planned, self._done / self._steps))

    def through(self, stage: Stage, index: int, began: float) -> float:
        """When the stage ended."""
        ended = time.perf_counter()
        self.tell(StageDone(stage, index, began, ended))
        return ended
