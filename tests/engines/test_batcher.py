"""The step batcher by simulation: one worker, driven by hand, on a clock that only its steps move."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deocc_engines.batcher import StepBatcher
from deocc_engines.completion import Priority
from deocc_engines.errors import Cancelled, DeadlineExceeded, EngineFailure, Unavailable
from deocc_engines.guidance import Rows
from deocc_engines.jobs import Job, Run


def proceed() -> None:
    pass


def run_of(start: float, steps: int, done: Callable[[], None] = proceed, width: int = 1) -> Run[float]:
    """x ← 2x + 1, so many times, in so many rows that start one apart: the denoiser doubles, the run adds."""
    x = start + torch.arange(width, dtype=torch.float64)
    for _ in range(steps):
        x = 1 + (yield Rows(x, x, x, x))
    done()
    return float(x.sum())


def expected(start: float, steps: int, width: int = 1) -> float:
    return sum((start + row + 1) * 2.0**steps - 1 for row in range(width))


@dataclass
class Simulation:
    """A step takes a second, and a tenth for each row more."""

    sizes: Sequence[int] = (1,)
    now: float = 0.0
    batches: list[int] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.batcher = StepBatcher(self._denoise, sizes=self.sizes, workers=0, clock=lambda: self.now)

    def _denoise(self, z_t: Tensor, t: Tensor, condition: Tensor, text: Tensor) -> Tensor:
        self.batches.append(len(z_t))
        self.now += 1 + 0.1 * (len(z_t) - 1)
        return 2 * z_t

    def job(self, name: str, samples: int = 1, steps: int = 4, width: int = 1, **options: object) -> Job[float]:
        def ended(index: int) -> Callable[[], None]:
            return lambda: self.ends.__setitem__(f"{name}{index}", self.now)

        runs = [run_of(index, steps, ended(index), width) for index in range(samples)]
        return self.batcher.submit(runs, steps * width, **{"stop": proceed, **options})  # type: ignore[arg-type]

    def until_idle(self) -> None:
        while self.batcher.step():
            pass


def test_a_late_small_job_goes_before_the_rest_of_a_large_one() -> None:
    simulation = Simulation()
    large = simulation.job("large", samples=8)
    simulation.batcher.step()
    small = simulation.job("small")
    simulation.until_idle()
    assert simulation.ends["large0"] == 4  # what came first is not held up
    assert simulation.ends["small0"] == 8
    assert simulation.ends["large7"] == 36
    assert (large.result(), small.result()) == ([expected(i, 4) for i in range(8)], [expected(0, 4)])


def test_equal_jobs_are_served_in_order_of_arrival() -> None:
    simulation = Simulation()
    for name in "abc":
        simulation.job(name)
    simulation.until_idle()
    assert simulation.ends == {"a0": 4, "b0": 8, "c0": 12}


@pytest.mark.parametrize(("every", "large_within", "small_within"), [(6, 100, 12), (4, 200, 60)])
def test_a_large_job_does_not_starve_under_a_stream_of_small_ones(
    every: int, large_within: float, small_within: float
) -> None:
    """Small jobs of four steps come as two thirds of what can be served, or as all of it; the large one has 32."""
    simulation = Simulation()
    simulation.job("large", samples=8)
    for n in range(200):
        if n % every == 0:
            simulation.job(f"small{n}-")
        simulation.batcher.step()
    assert simulation.ends["large7"] <= large_within
    assert max(simulation.ends[f"small{n}-0"] - n for n in range(0, 140, every)) <= small_within


def test_weight_is_a_share() -> None:
    simulation = Simulation()
    simulation.job("slow", samples=8)
    simulation.job("fast", samples=8, weight=4.0)
    simulation.until_idle()
    assert simulation.ends["fast7"] < simulation.ends["slow3"]
    assert simulation.ends["slow0"] <= simulation.ends["fast4"]


def test_priority_is_a_share_that_nobody_loses() -> None:
    """High jobs come as fast as they can be served; the low one among them moves on, and they hardly wait for it."""
    simulation = Simulation()
    simulation.job("low", weight=Priority.LOW.weight)
    for n in range(200):
        if n % 4 == 0:
            simulation.job(f"high{n}-", weight=Priority.HIGH.weight)
        simulation.batcher.step()
    assert simulation.ends["low0"] <= 80
    assert max(simulation.ends[f"high{n}-0"] - n for n in range(0, 180, 4)) <= 8


def test_a_late_job_goes_by_its_priority() -> None:
    simulation = Simulation()
    for n in range(4):
        simulation.job(f"early{n}-", samples=2, weight=Priority.NORMAL.weight)
    simulation.batcher.step()
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        simulation.job(priority.name, weight=priority.weight)
    simulation.until_idle()
    order = sorted(simulation.ends, key=simulation.ends.__getitem__)
    assert order[0] == "HIGH0"
    assert order.index("NORMAL0") < order.index("early0-1")
    assert order[-1] == "LOW0"


def test_what_has_priority_may_still_expire_and_the_rest_takes_its_room() -> None:
    simulation = Simulation()

    def stop() -> None:
        if simulation.now >= 3:
            raise DeadlineExceeded("the time is over")

    high = simulation.job("high", steps=20, weight=Priority.HIGH.weight, stop=stop)
    low = simulation.job("low", weight=Priority.LOW.weight)
    simulation.until_idle()
    with pytest.raises(DeadlineExceeded):
        high.result()
    assert low.result() == [expected(0, 4)]
    assert simulation.now == 7


def test_runs_join_a_batch_at_any_step_and_leave_it() -> None:
    simulation = Simulation(range(1, 5))
    first = simulation.job("first", samples=2, steps=3)
    simulation.batcher.step()
    second = simulation.job("second", samples=3, steps=2)
    other = simulation.job("other", steps=1, key="another shape")
    simulation.until_idle()
    assert simulation.batches[:2] == [2, 4]
    assert max(simulation.batches) == 4
    assert first.result() == [expected(i, 3) for i in range(2)]
    assert second.result() == [expected(i, 2) for i in range(3)]
    assert other.result() == [expected(0, 1)]


def test_a_run_that_wants_more_rows_than_fit_is_served_in_several_batches() -> None:
    """Beside others, which fill them."""
    simulation = Simulation(range(1, 5))
    wide = simulation.job("wide", steps=2, width=6)
    narrow = simulation.job("narrow", steps=2, width=2)
    simulation.until_idle()
    assert simulation.batches == [4, 4, 2, 4, 2]  # the narrow one is due first
    assert (wide.result(), narrow.result()) == ([expected(0, 2, 6)], [expected(0, 2, 2)])


def test_a_stopped_job_leaves_at_the_next_boundary_and_its_room_is_used() -> None:
    simulation = Simulation(range(1, 5))
    gone = threading.Event()

    def stop() -> None:
        if gone.is_set():
            raise Cancelled("the caller went away")

    stopped = simulation.job("stopped", samples=3, steps=50, stop=stop)
    stays = simulation.job("stays", steps=3)
    simulation.batcher.step()
    gone.set()
    simulation.batcher.step()
    assert simulation.batches == [4, 1]
    with pytest.raises(Cancelled):
        stopped.result()
    simulation.until_idle()
    assert stays.result() == [expected(0, 3)]
    assert simulation.batcher.jobs == 0


def test_an_expired_job_ends_though_it_was_never_begun() -> None:
    simulation = Simulation()

    def stop() -> None:
        if simulation.now >= 2:
            raise DeadlineExceeded("the time is over")

    simulation.job("first", steps=10)
    expired = simulation.job("expired", steps=20, stop=stop)
    simulation.until_idle()
    assert expired.over
    with pytest.raises(DeadlineExceeded):
        expired.result()
    assert simulation.now == 10  # nothing was computed for it


def test_one_runs_failure_is_its_own() -> None:
    def poisoned(z_t: Tensor, t: Tensor, condition: Tensor, text: Tensor) -> Tensor:
        if (z_t < 0).any():
            raise EngineFailure("negative")
        return 2 * z_t

    batcher = StepBatcher(poisoned, sizes=range(1, 5), workers=0)
    good, bad = (batcher.submit([run_of(start, 2)], 2, stop=proceed) for start in (1.0, -8.0))
    while batcher.step():
        pass
    assert good.result() == [expected(1, 2)]
    with pytest.raises(EngineFailure):
        bad.result()


def test_the_backlog_is_what_is_left() -> None:
    simulation = Simulation()
    simulation.job("a", samples=2, steps=3)
    assert simulation.batcher.backlog == 6
    simulation.batcher.step()
    assert simulation.batcher.backlog == 5
    assert simulation.batcher.seconds(5) == pytest.approx(5.0)
    simulation.until_idle()
    assert simulation.batcher.backlog == 0


def test_closing_ends_what_waits_and_refuses_more() -> None:
    simulation = Simulation()
    job = simulation.job("a")
    simulation.batcher.close()
    with pytest.raises(Unavailable):
        job.result()
    with pytest.raises(Unavailable):
        simulation.job("b")


@settings(max_examples=40, deadline=None)
@given(
    jobs=st.lists(
        st.tuples(
            st.integers(1, 4),
            st.integers(1, 5),
            st.integers(1, 7),
            st.integers(0, 6),
            st.sampled_from([one.weight for one in Priority]),
        ),
        min_size=1,
        max_size=6,
    ),
    sizes=st.sampled_from([(1,), (1, 2, 3), (1, 2, 4), (1, 4), (1, 2, 3, 4, 5)]),
)
def test_results_do_not_depend_on_company(jobs: list[tuple[int, int, int, int, float]], sizes: tuple[int, ...]) -> None:
    """Jobs of any size that arrive at any boundary, in batches of any size, some of them stopped half-way."""
    simulation = Simulation(sizes)
    pending = sorted(enumerate(jobs), key=lambda entry: entry[1][3])
    given_in: list[tuple[Job[float], int, int, int]] = []
    boundary = 0
    while pending or simulation.batcher.jobs:
        while pending and pending[0][1][3] <= boundary:
            number, (samples, steps, width, _, weight) = pending.pop(0)
            job = simulation.job(str(number), samples, steps, width, weight=weight)
            given_in.append((job, samples, steps, width))
        simulation.batcher.step()
        boundary += 1
    for job, samples, steps, width in given_in:
        assert job.result() == [expected(i, steps, width) for i in range(samples)]
    assert set(simulation.batches) <= set(sizes)


@pytest.mark.parametrize(("samples", "width", "batch"), [(2, 1, 1), (1, 2, 1), (1, 4, 2), (1, 16, 8)])
def test_threads_share_the_work_and_wake_who_waits(samples: int, width: int, batch: int) -> None:
    """Evenly, in the largest batches that leave none of them idle."""
    arrived = threading.Barrier(2, timeout=10)  # only two workers at once can pass
    batches = []

    def denoise(z_t: Tensor, t: Tensor, condition: Tensor, text: Tensor) -> Tensor:
        batches.append(len(z_t))
        arrived.wait()
        return 2 * z_t

    batcher = StepBatcher(denoise, sizes=(1, 2, 4, 8), workers=2)
    runs = [run_of(index, 3, width=width) for index in range(samples)]
    assert batcher.run(runs, 3 * width, stop=proceed) == [expected(index, 3, width) for index in range(samples)]
    assert batches == [batch] * 6
    batcher.close()


def test_what_a_run_gave_goes_with_its_last_user() -> None:
    """At once: cycles are found late, and pictures are large."""

    class Picture:
        pass

    def run() -> Run[Picture]:
        x = torch.zeros(1)
        yield Rows(x, x, x, x)
        return Picture()

    simulation = Simulation()
    job = simulation.batcher.submit([run()], 1, stop=proceed)
    simulation.until_idle()
    gc.disable()
    try:
        picture = weakref.ref(job.result()[0])
        del job
        assert picture() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("asked", [0, 1, 2, 5])
def test_who_waits_for_a_stopped_job_is_woken(asked: int) -> None:
    """Alone, when there is nobody else whose steps would wake it by chance."""
    batcher = StepBatcher(lambda z_t, t, condition, text: 2 * z_t)
    left = iter(range(asked))

    def stop() -> None:
        if next(left, None) is None:
            raise Cancelled("enough")

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(batcher.run, [run_of(0, 9)], 9, stop=stop)
        try:
            with pytest.raises(Cancelled):
                call.result(timeout=5)
        finally:
            batcher.close()
