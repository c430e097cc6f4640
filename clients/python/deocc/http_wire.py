"""The HTTP side of the contract without any input or output: messages to requests, answers to messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeVar

import httpx
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from deocc.errors import ConnectionFailed, DeadlineExceeded, DeoccError, ServerError, error_from_problem
from deocc.v1 import deocclusion_pb2 as v1

__all__ = [
    "HttpCall",
    "call_of",
    "connection_error",
    "error_of_answer",
    "event_of_sse",
    "list_engines",
    "parse",
    "time_header",
    "upload",
]

M = TypeVar("M", bound=Message)

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
EVENT_STREAM = "text/event-stream"
# Names of server-sent events, and the member of CompleteStreamResponse that each one fills.
EVENTS = frozenset({"progress", "modal", "preview", "sample", "result"})


@dataclass(frozen=True)
class HttpCall:
    """One request, ready to be sent by whatever sends."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes = b""


def time_header(seconds: float | None) -> dict[str, str]:
    """Tells the service how long the caller will wait."""
    return {} if seconds is None else {"x-deocc-timeout": f"{seconds:g}"}


def upload(content: bytes) -> HttpCall:
    """The encoded bytes as they are."""
    headers = {"content-type": "application/octet-stream", "accept": JSON}
    return HttpCall("POST", "/v1/images", headers, content)


def list_engines() -> HttpCall:
    return HttpCall("GET", "/v1/engines", {"accept": JSON})


def call_of(request: v1.SegmentRequest | v1.CompleteRequest | v1.CompleteStreamRequest) -> HttpCall:
    """The message itself: free of any state on the server, and without the third that base64 adds."""
    path = "/v1/segment" if isinstance(request, v1.SegmentRequest) else "/v1/complete"
    accept = EVENT_STREAM if isinstance(request, v1.CompleteStreamRequest) else PROTOBUF
    return HttpCall("POST", path, {"content-type": PROTOBUF, "accept": accept}, request.SerializeToString())


def parse(answer: httpx.Response, message: M) -> M:
    """Fills the message from an answer whose body has been read.

    Raises:
        DeoccError: the service refused or failed, or its answer is not the message.
    """
    if not answer.is_success:
        raise error_of_answer(answer)
    if answer.headers.get("content-type", "").startswith(PROTOBUF):
        try:
            message.ParseFromString(answer.content)
        except DecodeError as error:
            raise ServerError("the service's answer cannot be understood") from error
        return message
    return _filled(answer.text, message)


def event_of_sse(name: str, data: str) -> v1.CompleteStreamResponse | None:
    """One server-sent event; None for a name that is newer than this client.

    Raises:
        DeoccError: the event named "error", or data that is not the message.
    """
    if name == "error":
        problem = _object(data)
        status = problem.get("status")
        raise error_from_problem(status if isinstance(status, int) else 500, problem)
    if name not in EVENTS:
        return None
    event = v1.CompleteStreamResponse()
    member: Message = getattr(event, name)
    member.SetInParent()
    _filled(data, member)
    return event


def error_of_answer(answer: httpx.Response) -> DeoccError:
    """The error behind an unsuccessful answer whose body has been read."""
    problem = _object(answer.text) if "json" in answer.headers.get("content-type", "") else {}
    return error_from_problem(
        answer.status_code,
        problem,
        retry_after=_seconds(answer.headers.get("retry-after")),
        request_id=answer.headers.get("x-request-id"),
    )


def connection_error(error: httpx.HTTPError | httpx.InvalidURL, url: str) -> DeoccError:
    """The error for an answer that never came."""
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        return DeadlineExceeded("the time that the caller gave is over")
    return ConnectionFailed(f"{url} could not be reached: {error or type(error).__name__}")


def _filled(text: str, message: M) -> M:
    try:
        return json_format.Parse(text, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ServerError("the service's answer cannot be understood") from error


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(header: str | None) -> float | None:
    # Its other form, a date, is left to the ordinary backoff: clocks differ.
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
