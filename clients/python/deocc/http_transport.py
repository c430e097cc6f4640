"""HTTP by httpx, blocking and asyncio. All that is not sending and receiving is in `http_wire`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import contextmanager

import httpx
import httpx_sse

from deocc import http_wire as wire
from deocc.errors import ServerError
from deocc.v1 import deocclusion_pb2 as v1

__all__ = ["AsyncHttpTransport", "HttpTransport"]

CONNECT_TIMEOUT = 10.0  # seconds
# The service is told the caller's time and answers by itself when it is over; its answer needs a moment to arrive.
GRACE = 5.0  # seconds


class HttpTransport:
    """Blocking.

    Args:
        timeout: seconds for one call; None for ever. The service is told, and stops its work by then.
        headers: sent with every request, e.g. an Authorization.
        inner: httpx's own transport; None for the network.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float | None,
        headers: Mapping[str, str] | None = None,
        inner: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=url, timeout=_timeout(timeout), headers=headers, transport=inner)
        self._time = wire.time_header(timeout)

    def upload(self, content: bytes) -> v1.UploadImageResponse:
        return wire.parse(self._send(wire.upload(content)), v1.UploadImageResponse())

    def segment(self, request: v1.SegmentRequest) -> v1.SegmentResponse:
        return wire.parse(self._send(wire.call_of(request)), v1.SegmentResponse())

    def complete(self, request: v1.CompleteRequest) -> v1.CompleteResponse:
        return wire.parse(self._send(wire.call_of(request)), v1.CompleteResponse())

    def list_engines(self) -> v1.ListEnginesResponse:
        return wire.parse(self._send(wire.list_engines()), v1.ListEnginesResponse())

    def complete_stream(self, request: v1.CompleteStreamRequest) -> Generator[v1.CompleteStreamResponse, None, None]:
        call = wire.call_of(request)
        headers = call.headers | self._time
        with (
            _connection_errors(self._http.base_url),
            self._http.stream(call.method, call.path, headers=headers, content=call.content) as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise wire.error_of_answer(answer)
            for event in httpx_sse.EventSource(answer).iter_sse():
                if (message := wire.event_of_sse(event.event, event.data)) is not None:
                    yield message

    def close(self) -> None:
        self._http.close()

    def _send(self, call: wire.HttpCall) -> httpx.Response:
        headers = call.headers | self._time
        with _connection_errors(self._http.base_url):
            return self._http.request(call.method, call.path, headers=headers, content=call.content)


class AsyncHttpTransport:
    """The same for asyncio.

    Messages become bytes and back on the loop: it takes milliseconds, and protobuf lets nothing else run meanwhile,
    in a thread neither.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float | None,
        headers: Mapping[str, str] | None = None,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=_timeout(timeout), headers=headers, transport=inner)
        self._time = wire.time_header(timeout)

    async def upload(self, content: bytes) -> v1.UploadImageResponse:
        return wire.parse(await self._send(wire.upload(content)), v1.UploadImageResponse())

    async def segment(self, request: v1.SegmentRequest) -> v1.SegmentResponse:
        return wire.parse(await self._send(wire.call_of(request)), v1.SegmentResponse())

    async def complete(self, request: v1.CompleteRequest) -> v1.CompleteResponse:
        return wire.parse(await self._send(wire.call_of(request)), v1.CompleteResponse())

    async def list_engines(self) -> v1.ListEnginesResponse:
        return wire.parse(await self._send(wire.list_engines()), v1.ListEnginesResponse())

    async def complete_stream(
        self, request: v1.CompleteStreamRequest
    ) -> AsyncGenerator[v1.CompleteStreamResponse, None]:
        call = wire.call_of(request)
        headers = call.headers | self._time
        with _connection_errors(self._http.base_url):
            async with self._http.stream(call.method, call.path, headers=headers, content=call.content) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise wire.error_of_answer(answer)
                async for event in httpx_sse.EventSource(answer).aiter_sse():
                    if (message := wire.event_of_sse(event.event, event.data)) is not None:
                        yield message

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, call: wire.HttpCall) -> httpx.Response:
        headers = call.headers | self._time
        with _connection_errors(self._http.base_url):
            return await self._http.request(call.method, call.path, headers=headers, content=call.content)


def _timeout(seconds: float | None) -> httpx.Timeout:
    return httpx.Timeout(None if seconds is None else seconds + GRACE, connect=CONNECT_TIMEOUT)


@contextmanager
def _connection_errors(url: httpx.URL) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise wire.connection_error(error, str(url)) from error
    except httpx_sse.SSEError as error:
        raise ServerError("the service's answer is not a stream of events") from error
