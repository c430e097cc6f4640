"""Continuous batching at the level of denoising steps: runs join and leave at every boundary between two steps.

A run is a generator that yields the rows it wants denoised, is sent the predictions, and returns its result; one
sample of a request is one run. At each boundary a worker takes the runs that are due, asks the denoiser once for all of
their rows, and lets each run go on by itself. What a run computes never depends on the others, only when.

Order: weighted fair queueing (Demers, Keshav & Shenker, 1989) with runs for packets. A run is due by the virtual time
at which it would end if all jobs shared the denoiser evenly, so the first sample of a late small job comes before the
last ones of an early large job, equal jobs are served in order of arrival, and nothing waits for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
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
        max_rows: of one batch; a run that wants more at once gets a batch of its own.
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
        width: int = 1,
        weight: float = 1.0,
        key: Hashable = None,
    ) -> list[T]:
        """Runs to their ends, in the calling thread's place; their results in order.

        If one of them raises, the others of the job end too and the error is raised here. When this returns or raises,
        none of the runs is at work any more.

        Args:
            cost: rows that one run will ask for in all.
            stop: asked at every boundary; raises to end the job.
            width: rows that one run asks for at a time.
            weight: share of the denoiser that the job is due, against others.
            key: only rows of jobs with the same key fit into one batch.
        """
        job = self.submit(runs, cost, stop=stop, width=width, weight=weight, key=key)
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
        width: int = 1,
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
            job = Job(tuple(runs), self._virtual, cost, width, weight, stop, key)
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
        """One boundary and one step in the calling thread; the rows that were denoised."""
        with self._changed:
            batch = self._pick()
        return self._advance(batch) if batch else 0

    def _start(self) -> None:
        # Threads are started late: a batcher that was built is often copied to another process first.
        for index in range(self.workers):
            self._threads.append(threading.Thread(target=self._work, name=f"denoise-{index}", daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (batch := self._pick()):
                    if self._closed:
                        return
                    self._changed.wait()
            self._advance(batch)

    def _pick(self) -> list[_Entry]:
        """The runs that are due, as many as fit; ends jobs that were stopped."""
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
        batch: list[_Entry] = []
        rows = 0
        for entry in waiting:
            if batch and (entry.job.key != batch[0].job.key or rows + entry.rows > self._max_rows):
                continue
            batch.append(entry)
            rows += entry.rows
        for entry in batch:
            entry.busy = True
        if batch:  # virtual time runs as fast as each unit of weight is served
            self._virtual += rows / sum(job.weight for job in self._jobs)
        return batch

    def _advance(self, batch: list[_Entry]) -> int:
        started = self._clock()
        rows = 0
        asking = [entry for entry in batch if entry.begin()]
        if asking:
            self._answer(asking)
            rows = sum(entry.rows for entry in asking)
        seconds = self._clock() - started
        with self._changed:
            for entry in batch:
                entry.busy = False
            if rows:
                measured = seconds / rows
                share = SMOOTHING if self.row_seconds else 1.0
                self.row_seconds += share * (measured - self.row_seconds)
            self._sweep()
            self._changed.notify_all()  # their runs may be taken again
        if rows and self.on_step is not None:
            self.on_step(seconds, rows)
        return rows

    def _answer(self, asking: list[_Entry]) -> None:
        wanted = [entry.asked for entry in asking if entry.asked is not None]
        try:
            together = wanted[0] if len(wanted) == 1 else Rows(*map(torch.cat, zip(*wanted, strict=True)))
            answers = torch.split(self._denoise(*together), [len(rows.z_t) for rows in wanted])
        except Exception as error:
            if len(asking) == 1:
                asking[0].job.fail(error)
                return
            for entry in asking:  # one run's failure must not become another's
                self._answer([entry])
            return
        for entry, answer in zip(asking, answers, strict=True):
            entry.send(answer)

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
    """One run of a job."""

    job: Job[Any]
    run: Run[Any]
    index: int
    due: tuple[float, int]  # virtual time of its end if all jobs shared evenly; then order of arrival
    left: float  # rows still to be denoised
    rows: int  # asked for at a time
    asked: Rows | None = None
    busy: bool = False
    ended: bool = False

    @property
    def waiting(self) -> bool:
        return not (self.busy or self.ended)

    def begin(self) -> bool:
        """Has it say what it wants, if it has not yet; False if it wants nothing any more."""
        if self.asked is None and not self.ended:
            self._on(lambda: next(self.run))
        return not self.ended and self.job.error is None

    def send(self, answer: Tensor) -> None:
        self._on(lambda: self.run.send(answer))

    def end(self) -> None:
        if self.waiting:
            self.run.close()
            self.ended = True

    def _on(self, resume: Callable[[], Rows]) -> None:
        done = self.rows if self.asked is not None else 0
        self.left = max(0.0, self.left - done)
        try:
            self.asked = resume()
            self.rows = len(self.asked.z_t)
        except StopIteration as end:
            self.ended, self.left = True, 0.0
            self.job.results[self.index] = end.value
        except Exception as error:
            self.ended = True
            self.job.fail(error)


class Job(Generic[T]):
    """The runs of one request."""

    _arrivals = 0

    def __init__(
        self,
        runs: tuple[Run[T], ...],
        virtual: float,
        cost: float,
        width: int,
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
            _Entry(self, run, index, (virtual + (index + 1) * each, Job._arrivals), cost, width)
            for index, run in enumerate(runs)
        ]

    @property
    def over(self) -> bool:
        """True when no run of it is at work or waits."""
        return all(entry.ended and not entry.busy for entry in self.entries)

    def fail(self, error: BaseException) -> None:
        """Ends the job at its next boundary; the first error is kept."""
        self.error = self.error or error

    def result(self) -> list[T]:
        """Of a job that is over; raises what ended it."""
        if self.error is not None:
            raise self.error
        return [self.results[index] for index in range(len(self.entries))]
