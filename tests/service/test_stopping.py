"""Work that nobody waits for stops within a step; what does not fit is refused in time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest

from tests.service.asking import as_json, complete, streamed
from tests.service.hosts import QUEUE, SLOTS, Host, assert_serves, said

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


def test_overload_says_when_to_come_back(host: Host) -> None:
    request = complete(text="sleep .2", steps=4)
    with ThreadPoolExecutor(SLOTS + QUEUE) as pool:
        calls = [pool.submit(host.rpc.Complete, request, timeout=60) for _ in range(SLOTS + QUEUE)]
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
