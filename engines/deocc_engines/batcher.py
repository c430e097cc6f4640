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

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from deocc_engines.errors import Unavailable
from deocc_engines.guidance import Denoiser, Rows
from deocc_engines.jobs import Entry, Job, Part, Run

__all__ = ["StepBatcher"]

T = TypeVar("T")

SMOOTHING = 0.05  # of the moving average of a row's seconds


class StepBatcher:
    """Denoises the runs of all jobs together. Safe to call from several threads at once.

    Args:
        denoise: takes any number of rows.
        sizes: of batches, ascending, from 1. A run that wants more rows at once is served in several, by as many
            workers as are free; what waits is shared among the workers rather than taken by the first.
        workers: threads that take batches, each at its own pace: streams of a CPU, 1 for a GPU. 0: only `step` works.
        on_step: told the seconds and the rows of every step.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        denoise: Denoiser,
        *,
        sizes: Sequence[int] = (1,),
        workers: int = 1,
        on_step: Callable[[float, int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._denoise, self._sizes, self.workers = denoise, tuple(sizes), workers
        self.on_step, self._clock = on_step, clock
        self._changed = threading.Condition()
        self._jobs: list[Job[Any]] = []
        self._threads: list[threading.Thread] = []
        self._virtual = 0.0
        self._denoising = 0  # workers
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
            due, size = self._due()
            if new := [entry for entry in due if entry.asked is None]:
                for entry in new:
                    entry.at_work += 1
                return lambda: self._begin(new)
            batch = self._pick(due, size)
            return (lambda: self._advance(batch)) if batch else None

    def _due(self) -> tuple[list[Entry], int]:
        """The runs whose turn it is, as many as fit into a batch, and its size; ends jobs that were stopped."""
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
        free = max(self.workers - self._denoising, 1)  # this worker, and those that will soon ask
        share = math.ceil(sum(entry.open for entry in fitting) / free)
        size = max(size for size in self._sizes if size <= max(share, 1))
        rows = 0
        for index, entry in enumerate(fitting):
            if rows >= size:
                return fitting[:index], size
            rows += entry.open
        return fitting, size

    def _pick(self, due: Sequence[Entry], size: int) -> list[Part]:
        batch: list[Part] = []
        room = size
        for entry in due:
            batch.append(entry.take(room))
            room -= len(batch[-1].rows.z_t)
        if batch:  # virtual time runs as fast as each unit of weight is served
            self._virtual += (size - room) / sum(job.weight for job in self._jobs)
            self._denoising += 1
        return batch

    def _begin(self, new: Sequence[Entry]) -> int:
        for entry in new:
            self._go_on(entry)
        self._leave(new)
        return 0

    def _advance(self, batch: Sequence[Part]) -> int:
        started = self._clock()
        answers = self._answers(batch)
        seconds, rows = self._clock() - started, sum(len(part.rows.z_t) for part in batch)
        with self._changed:
            self._denoising -= 1
            measured = seconds / rows
            share = SMOOTHING if self.row_seconds else 1.0
            self.row_seconds += share * (measured - self.row_seconds)
            answered = [part.entry for part, answer in zip(batch, answers, strict=True) if part.give(answer)]
        self._leave([part.entry for part in batch if part.entry not in answered])
        for entry in answered:  # each may be taken up again while this worker goes on with the next
            self._go_on(entry)
            self._leave([entry])
        if self.on_step is not None:
            self.on_step(seconds, rows)
        return rows

    def _answers(self, batch: Sequence[Part]) -> Sequence[Tensor | None]:
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

    def _go_on(self, entry: Entry) -> None:
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

    def _leave(self, entries: Sequence[Entry]) -> None:
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
        over = [job for job in self._jobs if job.over]
        if over:
            self._jobs = [job for job in self._jobs if not job.over]
            for job in over:
                job.entries.clear()  # each of which knows the job: the cycle would keep results until it is found
            self._changed.notify_all()  # whoever waits for one of them
