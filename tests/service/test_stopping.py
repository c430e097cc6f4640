"""Work that nobody waits for stops within a step; what does not fit is refused in time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest

from tests.service.asking import as_json, complete, streamed
from tests.service.hosts import QUEUE, Host, assert_serves, said

STEP = 0.1
SLOW = {"text": f"sleep {STEP}", "steps": 60}


def wait_for_steps(host: Host, count: int) -> None:
    end = time.monotonic() + 10
    while host.load.steps < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def assert_stops(host: Host) -> None:
    """At most the step that was running, and the one that began while the news was on its way."""
    left_at = host.load.steps
    time.sleep(6 * STEP)
    assert host.load.steps - left_at <= 2
    assert_serves(host)


@pytest.mark.parametrize("way", ["unary", "stream"])
def test_grpc_cancel_stops_the_work(host: Host, way: str) -> None:
    before = host.load.steps
    if way == "unary":
        call = host.rpc.Complete.future(complete(**SLOW))
        wait_for_steps(host, before + 2)
    else:
        call = host.rpc.CompleteStream(streamed(complete(**SLOW)))
        while next(call).progress.step < 3:
            pass
    call.cancel()
    assert_stops(host)


@pytest.mark.parametrize("accept", ["application/json", "image/png", "text/event-stream"])
def test_http_disconnect_stops_the_work(host: Host, accept: str) -> None:
    with httpx.Client(base_url=host.http.base_url, timeout=httpx.Timeout(10, read=4 * STEP)) as client:
        headers = {"Accept": accept}
        if accept == "text/event-stream":
            with client.stream("POST", "/v1/complete", json=as_json(complete(**SLOW)), headers=headers) as answer:
                for line in answer.iter_lines():
                    if '"step": 3' in line:
                        break
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/complete", json=as_json(complete(**SLOW)), headers=headers)
    assert_stops(host)


def test_a_deadline_ends_the_work_on_both_protocols(host: Host) -> None:
    with pytest.raises(grpc.RpcError) as error:
        host.rpc.Complete(complete(**SLOW), timeout=4 * STEP)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert_stops(host)
    answer = host.http.post("/v1/complete", json=as_json(complete(**SLOW)), headers={"X-Deocc-Timeout": f"{4 * STEP}"})
    assert (answer.status_code, answer.json()["reason"]) == (504, "DEADLINE_EXCEEDED")
    assert_stops(host)


def test_what_would_end_too_late_is_refused_at_once(host: Host) -> None:
    """With several seconds of work accepted, a second is too little, and the answer comes at once."""
    assert_serves(host)
    busy = complete(text="sleep .1", steps=30, num_samples=4)
    body, soon = as_json(complete(text="sleep .1", steps=30)), {"X-Deocc-Timeout": "1"}
    calls = [host.rpc.Complete.future(busy) for _ in range(2)]
    try:
        time.sleep(1.5)
        asked = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            host.rpc.Complete(complete(text="sleep .1", steps=30), timeout=1)
        answer = host.http.post("/v1/complete", json=body, headers=soon)
        assert time.monotonic() - asked < 0.8
    finally:
        for call in calls:
            call.cancel()
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert said(error.value) == ("DEADLINE_UNMEETABLE", None)
    assert (answer.status_code, answer.json()["reason"]) == (429, "DEADLINE_UNMEETABLE")
    assert 3 <= int(answer.headers["retry-after"]) <= 40
    assert_serves(host)


def test_a_small_job_does_not_wait_for_a_large_one(host: Host) -> None:
    large = host.rpc.Complete.future(complete(text="sleep .1", steps=15, num_samples=4))
    wait_for_steps(host, host.load.steps + 4)
    started = time.monotonic()
    assert host.rpc.Complete(complete(text="sleep .1", steps=3), timeout=10).samples
    assert time.monotonic() - started < 2.5  # two samples of the large one hold both workers for 1.5 s at most
    assert not large.done()
    assert len(large.result().samples) == 4


def test_overload_says_when_to_come_back(host: Host) -> None:
    request = complete(text="sleep .2", steps=4)
    with ThreadPoolExecutor(QUEUE) as pool:
        calls = [pool.submit(host.rpc.Complete, request, timeout=60) for _ in range(QUEUE)]
        time.sleep(0.6)
        with pytest.raises(grpc.RpcError) as error:
            host.rpc.Complete(request, timeout=10)
        answer = host.http.post("/v1/complete", json=as_json(request))
        segmented = time.monotonic()
        body = {"image": as_json(request)["image"], "prompt": as_json(request)["prompt"]}
        assert host.http.post("/v1/segment", json=body).status_code == 200
        assert time.monotonic() - segmented < 0.6  # a click does not wait behind completions
        assert all(call.result().samples for call in calls)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert said(error.value) == ("OVERLOADED", None)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) == answer.json()["retry_after"] >= 1
    assert_serves(host)
