"""Who is let in, by simulation: a batcher that says what is left of its work, at one row a second and worker."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from deocc_engines.completion import Cost, Priority
from deocc_engines.errors import DeadlineUnmeetable, Overloaded
from deocc_service.admission import Admission


@dataclass
class Work:
    backlog: float = 0.0
    jobs: int = 0
    workers: int = 2

    def seconds(self, rows: float) -> float:
        return rows / self.workers


def test_the_house_is_bounded_in_jobs_and_in_bytes() -> None:
    admission = Admission(Work(), jobs=2, max_bytes=100)
    first = admission.admit(Cost(8, 8), 90, None)
    with pytest.raises(Overloaded, match="of this size"):
        admission.admit(Cost(8, 8), 20, None)
    admission.admit(Cost(8, 8), 10, None)
    with pytest.raises(Overloaded) as error:
        admission.admit(Cost(8, 8), 0, None)
    assert error.value.retry_after == 8  # what those inside still take
    first.leave()
    first.leave()
    admission.admit(Cost(8, 8), 90, None)
    assert admission.jobs == 2


def test_an_image_larger_than_all_room_is_let_in_alone() -> None:
    admission = Admission(Work(), jobs=2, max_bytes=100)
    admission.admit(Cost(8, 8), 1000, None)
    with pytest.raises(Overloaded):
        admission.admit(Cost(8, 8), 1, None)


def test_work_that_would_end_too_late_is_refused_with_the_time_to_come_back_at() -> None:
    work = Work()
    admission = Admission(work, jobs=9, max_bytes=100)
    place = admission.admit(Cost(20, 10), 1, left=0.1)  # an empty house tries everything
    with pytest.raises(DeadlineUnmeetable) as error:
        admission.admit(Cost(8, 4), 1, left=7)
    assert error.value.retry_after == 10
    admission.admit(Cost(8, 4), 1, left=8).leave()  # two of equal share: 2 x 4 s
    place.begin()  # from now on the batcher knows
    work.backlog = 2
    admission.admit(Cost(8, 4), 1, left=5).leave()  # 1 s is before it
    with pytest.raises(DeadlineUnmeetable):
        admission.admit(Cost(8, 8), 1, left=5)  # steps of one sample wait for each other


@pytest.mark.parametrize(("priority", "within"), [(Priority.HIGH, 5), (Priority.NORMAL, 8), (Priority.LOW, 20)])
def test_priority_counts_in_what_can_be_promised(priority: Priority, within: float) -> None:
    """Against one normal job of 50 s, 4 s of work are due four fifths, a half or a fifth of the denoiser."""
    admission = Admission(Work(), jobs=9, max_bytes=100)
    admission.admit(Cost(100, 12), 1, None)
    with pytest.raises(DeadlineUnmeetable):
        admission.admit(Cost(8, 4), 1, within - 0.1, weight=priority.weight)
    admission.admit(Cost(8, 4), 1, within, weight=priority.weight)
