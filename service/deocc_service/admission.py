"""Who is let in: bounds on jobs and bytes, and no work that would end too late."""

from __future__ import annotations

import threading
from typing import Protocol

from deocc_engines.completion import Cost
from deocc_engines.errors import DeadlineUnmeetable, Overloaded

__all__ = ["Admission", "Batcher", "Place"]


class Batcher(Protocol):
    """What is asked of a `StepBatcher`."""

    @property
    def backlog(self) -> float: ...
    @property
    def jobs(self) -> int: ...
    @property
    def workers(self) -> int: ...
    def seconds(self, rows: float) -> float: ...


class Admission:
    """Lets completions in, each to a `Place` that it leaves in the end. Safe to call from several threads at once.

    Args:
        jobs: completions in the house, those in preparation included.
        max_bytes: of their images, as sent.
    """

    def __init__(self, batcher: Batcher, jobs: int, max_bytes: int) -> None:
        self._batcher, self._max_jobs, self._max_bytes = batcher, jobs, max_bytes
        self._lock = threading.Lock()
        self._places: set[Place] = set()

    @property
    def jobs(self) -> int:
        """Completions in the house."""
        return len(self._places)

    @property
    def backlog_seconds(self) -> float:
        """What all work in the house still takes, as measured lately."""
        with self._lock:
            return self._backlog_seconds()

    def admit(self, cost: Cost, size: int, left: float | None, weight: float = 1.0) -> Place:
        """A place for work with an image of `size` bytes.

        Args:
            left: seconds until the caller's deadline; None: none.
            weight: share of the denoiser that it is due, against others.

        Raises:
            Overloaded: the house is full.
            DeadlineUnmeetable: with what is there, the work would end too late.
        """
        with self._lock:
            backlog = self._backlog_seconds()
            if len(self._places) >= self._max_jobs:
                raise Overloaded("no room now; try again later", retry_after=backlog)
            if self._places and size + sum(place.size for place in self._places) > self._max_bytes:
                raise Overloaded("no room for an image of this size now; try again later", retry_after=backlog)
            # An empty house tries everything: what it measured last may be an accident, and only work corrects it.
            expected = self._expected(cost, weight, backlog)
            if left is not None and self._places and expected > left:
                raise DeadlineUnmeetable(
                    f"this would take about {expected:.1f} s, and {left:.1f} s are left; "
                    f"in {backlog:.1f} s there is nothing before it",
                    retry_after=backlog,
                )
            place = Place(self, cost.rows, size, weight)
            self._places.add(place)
            return place

    def forget(self, place: Place) -> None:
        """Of a place that was left."""
        with self._lock:
            self._places.discard(place)

    def _backlog_seconds(self) -> float:
        waiting = sum(place.rows for place in self._places if not place.begun)
        return self._batcher.seconds(self._batcher.backlog + waiting)

    def _expected(self, cost: Cost, weight: float, backlog: float) -> float:
        """Seconds until the end: all that is there is before it, or each job has its fair share, whichever is less."""
        shares = (weight + sum(place.weight for place in self._places)) / weight
        own = self._batcher.seconds(cost.rows)
        alone = max(own, self._batcher.seconds(cost.steps * self._batcher.workers))  # steps wait for each other
        return max(alone, min(backlog + own, own * shares))


class Place:
    """One admitted completion."""

    def __init__(self, admission: Admission, rows: int, size: int, weight: float) -> None:
        self._admission = admission
        self.rows, self.size, self.weight, self.begun = rows, size, weight, False

    def begin(self) -> None:
        """From now on the batcher counts its rows."""
        self.begun = True

    def leave(self) -> None:
        """The work has ended, or never began."""
        self._admission.forget(self)
