"""When a call is tried again, and when after."""

from __future__ import annotations

import time

import httpx
import pytest
from google.protobuf import json_format

import deocc
from deocc.http_transport import HttpTransport
from deocc.retry import RetryPolicy

from .conftest import completion, png


def client(answers: list[httpx.Response | Exception], seen: list[httpx.Request]) -> deocc.Client:
    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return deocc.Client(transport=HttpTransport("http://deocc", timeout=9, inner=httpx.MockTransport(handle)))


def good() -> httpx.Response:
    return httpx.Response(200, text=json_format.MessageToJson(completion()))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int) -> None:
    seen: list[httpx.Request] = []
    with client([httpx.Response(status, headers={"retry-after": "1"}), good()], seen) as it:
        started = time.monotonic()
        it.complete(png("RGB"), points=[(1, 1)])
    assert time.monotonic() - started >= 1
    assert len(seen) == 2
    assert seen[0].headers["x-deocc-timeout"] == "9"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, deocc.InvalidInput), (404, deocc.NotFound), (501, deocc.ServerError), (504, deocc.DeadlineExceeded)],
)
def test_other_answers_end_it_even_without_a_problem_object(status: int, kind: type[deocc.DeoccError]) -> None:
    seen: list[httpx.Request] = []
    with client([httpx.Response(status, text="<html>", headers={"x-request-id": "r"}), good()], seen) as it:
        with pytest.raises(kind) as caught:
            it.complete(png("RGB"), points=[(1, 1)])
        assert caught.value.request_id == "r"
    assert len(seen) == 1


def test_a_lost_connection_is_tried_again_and_a_slow_answer_is_not() -> None:
    seen: list[httpx.Request] = []
    with client([httpx.ConnectError("refused"), good()], seen) as it:
        it.complete(png("RGB"), points=[(1, 1)])
    with client([httpx.ReadTimeout("slow"), good()], seen) as it, pytest.raises(deocc.DeadlineExceeded):
        it.complete(png("RGB"), points=[(1, 1)])
    assert len(seen) == 3


def test_nothing_listens() -> None:
    for way in ({"url": "http://127.0.0.1:1"}, {"grpc": "127.0.0.1:1"}):
        with deocc.Client(**way, retries=1) as it, pytest.raises(deocc.ConnectionFailed):  # type: ignore[arg-type]
            it.engines()


def test_a_longer_wait_than_the_policy_allows_is_the_callers_to_decide() -> None:
    policy = RetryPolicy(max_wait=5)
    assert policy.backoff(deocc.Overloaded("full", retry_after=5)) == 5
    assert policy.backoff(deocc.Overloaded("full", retry_after=6)) is False
    assert policy.backoff(deocc.Unavailable("loading")) is True
    assert policy.backoff(deocc.ServerError("broken")) is False
