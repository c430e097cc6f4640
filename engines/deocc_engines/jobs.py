"""What a step batcher keeps of each request; all of it changes under the batcher's lock."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from deocc_engines.guidance import Rows

__all__ = ["Entry", "Job", "Part", "Run"]

T = TypeVar("T")
Run = Generator[Rows, Tensor, T]


@dataclass(eq=False)
class Entry:
    """One run of a job."""

    job: Job[Any]
    run: Run[Any]
    index: int
    due: tuple[float, int]  # virtual time of its end if all jobs shared evenly; then order of arrival
    left: float  # rows still to be denoised
    asked: Rows | None = None
    taken: int = 0  # of the rows that it asked for
    answers: dict[int, Tensor] = field(default_factory=dict)  # to the rows from this one on
    at_work: int = 0  # workers that have a part of it
    ended: bool = False

    @property
    def open(self) -> int:
        """Rows that nobody has taken yet; 1 of a run that has not begun."""
        return 1 if self.asked is None else len(self.asked.z_t) - self.taken

    @property
    def waiting(self) -> bool:
        """Whether a worker can do something for it."""
        return not self.ended and (self.at_work == 0 if self.asked is None else self.open > 0)

    def take(self, room: int) -> Part:
        """As many of its rows as there is room for."""
        assert self.asked is not None
        first, self.taken = self.taken, min(self.taken + room, len(self.asked.z_t))
        self.at_work += 1
        return Part(self, first, Rows(*(tensor[first : self.taken] for tensor in self.asked)))

    def resume(self) -> Rows:
        """What it asks for next, now that all its rows have come."""
        if self.asked is None:
            return next(self.run)
        return self.run.send(torch.cat([self.answers[first] for first in sorted(self.answers)]))

    def ask(self, rows: Rows) -> None:
        """From now on it waits for these."""
        self.asked, self.taken, self.answers = rows, 0, {}

    def finish(self, result: Any) -> None:
        """It returned."""
        self.ended, self.left = True, 0.0
        self.job.results[self.index] = result

    def end(self) -> None:
        """Unless somebody is at work on it."""
        if not (self.at_work or self.ended):
            self.run.close()
            self.ended = True


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one run, from the `first` of those that it asked for."""

    entry: Entry
    first: int
    rows: Rows

    def give(self, answer: Tensor | None) -> bool:
        """True if it was the last that its run was waiting for."""
        entry = self.entry
        if answer is None or entry.asked is None:
            return False
        entry.answers[self.first] = answer
        entry.left = max(0.0, entry.left - len(answer))
        return sum(map(len, entry.answers.values())) == len(entry.asked.z_t)


class Job(Generic[T]):
    """The runs of one request."""

    _arrivals = 0

    def __init__(
        self,
        runs: tuple[Run[T], ...],
        virtual: float,
        cost: float,
        weight: float,
        stop: Callable[[], None],
        key: Hashable,
    ) -> None:
        self.stop, self.key, self.weight = stop, key, weight
        self.error: BaseException | None = None
        self.results: dict[int, T] = {}
        Job._arrivals += 1
        each = cost / weight
        self.entries = [
            Entry(self, run, index, (virtual + (index + 1) * each, Job._arrivals), cost)
            for index, run in enumerate(runs)
        ]

    @property
    def over(self) -> bool:
        """True when no run of it is at work or waits."""
        return all(entry.ended and not entry.at_work for entry in self.entries)

    def fail(self, error: BaseException) -> None:
        """Ends the job at its next boundary; the first error is kept."""
        self.error = self.error or error

    def result(self) -> list[T]:
        """Of a job that is over; raises what ended it."""
        if self.error is not None:
            raise self.error
        return [self.results[index] for index in sorted(self.results)]
