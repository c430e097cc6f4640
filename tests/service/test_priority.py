"""What is asked for with priority comes sooner, and as it would have come without."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from deocc.v1 import deocclusion_pb2 as pb
from tests.service.asking import as_form, complete
from tests.service.hosts import Host

SLOW = {"text": "sleep .03", "steps": 20}


@pytest.mark.parametrize("protocol", ["grpc", "form"])
def test_a_high_completion_overtakes_low_ones(host: Host, protocol: str) -> None:
    ended: dict[str, float] = {}

    def ask(name: str, **options: Any) -> None:
        request = complete(**SLOW, **options)
        if protocol == "grpc":
            host.rpc.Complete(request, timeout=60)
        else:
            form = as_form(request)
            assert form is not None
            assert host.http.post("/v1/complete", **form).status_code == 200
        ended[name] = time.monotonic()

    before = host.load.steps
    asking = [
        threading.Thread(target=ask, args=(f"low {n}",), kwargs={"priority": pb.PRIORITY_LOW, "num_samples": 2})
        for n in range(4)
    ]
    for thread in asking:
        thread.start()
    while host.load.steps < before + 4:
        time.sleep(0.01)
    ask("high", priority=pb.PRIORITY_HIGH)
    for thread in asking:
        thread.join()
    assert min(ended, key=ended.__getitem__) == "high"
    assert len(ended) == 5


def test_the_answer_does_not_depend_on_it(host: Host) -> None:
    answers = [host.rpc.Complete(complete(priority=priority), timeout=20) for priority in pb.Priority.values()]
    assert len({answer.samples[0].rgba_png for answer in answers}) == 1
