"""Continuous batching at the level of denoising steps: runs join and leave at every boundary between two steps.

A run is a generator that yields the rows it wants denoised, is sent the predictions, and returns its result; one
sample of a request is one run. At each boundary a worker takes the rows that are due, of one run or several, and asks
the denoiser once for all of them; a run goes on by itself when the last of its rows has come. What a run computes never
depends on the others, only when.

Order: weighted fair queueing (Demers, Keshav & Shenker, 1989) with runs for packets. A run is due by the virtual time
at which it would end if all jobs shared the denoiser evenly, so the first sample of a late small job comes before the
last ones of an early large job, equal jobs are served in order of arrival, and nothing waits for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from deocc_engines.errors import Unavailable
from deocc_engines.guidance import Denoiser, Rows

__all__ = ["Job", "Run", "StepBatcher"]

T = TypeVar("T")
Run = Generator[Rows, Tensor, T]

SMOOTHING = 0.05  # of the moving average of a row's seconds


class StepBatcher:
    """Denoises the runs of all jobs together. Safe to call from several threads at once.

    Args:
        denoise: takes any number of rows.
        max_rows: of one batch; a run that wants more at once is served in several, by as many workers as are free.
        workers: threads that take batches, each at its own pace: streams of a CPU, 1 for a GPU. 0: only `step` works.
        on_step: told the seconds and the rows of every step.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        denoise: Denoiser,
        *,
        max_rows: int = 1,
        workers: int = 1,
        on_step: Callable[[float, int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._denoise, self._max_rows, self.workers = denoise, max_rows, workers
        self.on_step, self._clock = on_step, clock
        self._changed = threading.Condition()
        self._jobs: list[Job[Any]] = []
        self._threads: list[threading.Thread] = []
        self._virtual = 0.0
        self._closed = False
        self.row_seconds = 0.0  # a moving average; 0 before the first step

    @property
    def backlog(self) -> float:
        """Rows that were asked for and are still to be denoised."""
        with self._changed:
            return sum(entry.left for job in self._jobs for entry in job.entries)

    @property
    def jobs(self) -> int:
        """Jobs that are not done."""
        return len(self._jobs)

    def seconds(self, rows: float) -> float:
        """What `rows` rows take with all workers at it, as measured lately."""
        return rows * self.row_seconds / max(self.workers, 1)

    def run(
        self,
        runs: Sequence[Run[T]],
        cost: float,
        *,
        stop: Callable[[], None],
        weight: float = 1.0,
        key: Hashable = None,
    ) -> list[T]:
        """Runs to their ends, in the calling thread's place; their results in order.

        If one of them raises, the others of the job end too and the error is raised here. When this returns or raises,
        none of the runs is at work any more.

        Args:
            cost: rows that one run will ask for in all.
            stop: asked at every boundary; raises to end the job.
            weight: share of the denoiser that the job is due, against others.
            key: only rows of jobs with the same key fit into one batch.
        """
        job = self.submit(runs, cost, stop=stop, weight=weight, key=key)
        with self._changed:
            while not job.over:
                self._changed.wait()
        return job.result()

    def submit(
        self,
        runs: Sequence[Run[T]],
        cost: float,
        *,
        stop: Callable[[], None],
        weight: float = 1.0,
        key: Hashable = None,
    ) -> Job[T]:
        """As `run`, without waiting.

        Raises:
            Unavailable: the batcher is closed.
        """
        with self._changed:
            if self._closed:
                raise Unavailable("the engine is being stopped")
            if len(self._threads) < self.workers:
                self._start()
            job = Job(tuple(runs), self._virtual, cost, weight, stop, key)
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    def close(self) -> None:
        """Ends all jobs at their next boundary."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.fail(Unavailable("the engine is being stopped"))
            self._sweep()
            self._changed.notify_all()  # the workers, which end

    def step(self) -> int:
        """One step in the calling thread; the rows that were denoised. 0: there is nothing to do."""
        while turn := self._turn():
            if rows := turn():
                return rows
        return 0

    def _start(self) -> None:
        # Threads are started late: a batcher that was built is often copied to another process first.
        for index in range(self.workers):
            self._threads.append(threading.Thread(target=self._work, name=f"denoise-{index}", daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (turn := self._turn()):
                    if self._closed:
                        return
                    self._changed.wait()
            turn()

    def _turn(self) -> Callable[[], int] | None:
        """What is to be done next: runs begin, or a batch is denoised. Says how many rows were."""
        with self._changed:
            due = self._due()
            if new := [entry for entry in due if entry.asked is None]:
                for entry in new:
                    entry.at_work += 1
                return lambda: self._begin(new)
            batch = self._pick(due)
            return (lambda: self._advance(batch)) if batch else None

    def _due(self) -> list[_Entry]:
        """The runs whose turn it is, as many as fit into a batch; ends jobs that were stopped."""
        for job in self._jobs:
            if job.error is None:
                try:
                    job.stop()
                except Exception as error:  # whatever it raises is what the caller wants to hear
                    job.fail(error)
        self._sweep()
        waiting = sorted(
            (entry for job in self._jobs if job.error is None for entry in job.entries if entry.waiting),
            key=lambda entry: entry.due,
        )
        fitting = [entry for entry in waiting if entry.job.key == waiting[0].job.key]
        rows = 0
        for index, entry in enumerate(fitting):
            if rows >= self._max_rows:
                return fitting[:index]
            rows += entry.open
        return fitting

    def _pick(self, due: Sequence[_Entry]) -> list[_Part]:
        batch: list[_Part] = []
        room = self._max_rows
        for entry in due:
            batch.append(entry.take(room))
            room -= len(batch[-1].rows.z_t)
        if batch:  # virtual time runs as fast as each unit of weight is served
            self._virtual += (self._max_rows - room) / sum(job.weight for job in self._jobs)
        return batch

    def _begin(self, new: Sequence[_Entry]) -> int:
        for entry in new:
            self._go_on(entry)
        self._leave(new)
        return 0

    def _advance(self, batch: Sequence[_Part]) -> int:
        started = self._clock()
        answers = self._answers(batch)
        seconds, rows = self._clock() - started, sum(len(part.rows.z_t) for part in batch)
        with self._changed:
            measured = seconds / rows
            share = SMOOTHING if self.row_seconds else 1.0
            self.row_seconds += share * (measured - self.row_seconds)
            answered = [part.entry for part, answer in zip(batch, answers, strict=True) if part.give(answer)]
        for entry in answered:
            self._go_on(entry)
        self._leave([part.entry for part in batch])
        if self.on_step is not None:
            self.on_step(seconds, rows)
        return rows

    def _answers(self, batch: Sequence[_Part]) -> Sequence[Tensor | None]:
        """Of each part; None where the denoiser failed, which its job then knows."""
        wanted = [part.rows for part in batch]
        try:
            together = wanted[0] if len(wanted) == 1 else Rows(*map(torch.cat, zip(*wanted, strict=True)))
            return torch.split(self._denoise(*together), [len(rows.z_t) for rows in wanted])
        except Exception as error:
            if len(batch) == 1:
                batch[0].entry.job.fail(error)
                return (None,)
        return [answer for part in batch for answer in self._answers([part])]  # one's failure must not become another's

    def _go_on(self, entry: _Entry) -> None:
        """Without the lock: what a run does by itself takes time."""
        if entry.job.error is not None:
            return
        try:
            asked = entry.resume()
        except StopIteration as end:
            with self._changed:
                entry.finish(end.value)
        except Exception as error:
            with self._changed:
                entry.ended = True
                entry.job.fail(error)
        else:
            with self._changed:
                entry.ask(asked)

    def _leave(self, entries: Sequence[_Entry]) -> None:
        with self._changed:
            for entry in entries:
                entry.at_work -= 1
            self._sweep()
            self._changed.notify_all()  # their runs may be taken again

    def _sweep(self) -> None:
        """Forgets the jobs that are over; ends the runs of those that failed."""
        for job in self._jobs:
            if job.error is not None:
                for entry in job.entries:
                    entry.end()
        left = [job for job in self._jobs if not job.over]
        if len(left) < len(self._jobs):
            self._jobs = left
            self._changed.notify_all()  # whoever waits for one of them


@dataclass(eq=False)
class _Entry:
    """One run of a job. Changes under the batcher's lock."""

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

    def take(self, room: int) -> _Part:
        """As many of its rows as there is room for."""
        assert self.asked is not None
        first, self.taken = self.taken, min(self.taken + room, len(self.asked.z_t))
        self.at_work += 1
        return _Part(self, first, Rows(*(tensor[first : self.taken] for tensor in self.asked)))

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
class _Part:
    """Rows of one run, from the `first` of those that it asked for."""

    entry: _Entry
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
            _Entry(self, run, index, (virtual + (index + 1) * each, Job._arrivals), cost)
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
        return [self.results[index] for index in range(len(self.entries))]
