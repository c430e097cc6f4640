"""The seam between the client and whatever carries its messages: HTTP, gRPC, this process, or a test's fake.

A transport moves messages of the wire contract and raises `deocc.errors`; it neither retries nor interprets.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Protocol, TypeVar

from deocc.v1 import deocclusion_pb2 as v1

__all__ = ["AsyncTransport", "BlockingTransport", "Transport"]

T = TypeVar("T")


class Transport(Protocol):
    """Blocking. Safe to call from several threads at once."""

    def upload(self, content: bytes) -> v1.UploadImageResponse: ...

    def segment(self, request: v1.SegmentRequest) -> v1.SegmentResponse: ...

    def complete(self, request: v1.CompleteRequest) -> v1.CompleteResponse: ...

    def complete_stream(self, request: v1.CompleteStreamRequest) -> Generator[v1.CompleteStreamResponse, None, None]:
        """Closing the generator ends the work behind it."""
        ...

    def list_engines(self) -> v1.ListEnginesResponse: ...

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """The same for asyncio."""

    async def upload(self, content: bytes) -> v1.UploadImageResponse: ...

    async def segment(self, request: v1.SegmentRequest) -> v1.SegmentResponse: ...

    async def complete(self, request: v1.CompleteRequest) -> v1.CompleteResponse: ...

    def complete_stream(self, request: v1.CompleteStreamRequest) -> AsyncGenerator[v1.CompleteStreamResponse, None]: ...

    async def list_engines(self) -> v1.ListEnginesResponse: ...

    async def close(self) -> None: ...


class BlockingTransport:
    """A Transport over an asynchronous one, which lives on an event loop in a thread of its own."""

    def __init__(self, open_transport: Callable[[], AsyncTransport]) -> None:
        """Args:
        open_transport: called on the loop's thread; its errors pass through.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="deocc-transport", daemon=True)
        self._thread.start()
        try:
            self._transport = self._wait(_call(open_transport))
        except BaseException:
            self._end()
            raise

    def upload(self, content: bytes) -> v1.UploadImageResponse:
        return self._wait(self._transport.upload(content))

    def segment(self, request: v1.SegmentRequest) -> v1.SegmentResponse:
        return self._wait(self._transport.segment(request))

    def complete(self, request: v1.CompleteRequest) -> v1.CompleteResponse:
        return self._wait(self._transport.complete(request))

    def complete_stream(self, request: v1.CompleteStreamRequest) -> Generator[v1.CompleteStreamResponse, None, None]:
        events = self._transport.complete_stream(request)
        try:
            while (event := self._wait(_next(events))) is not None:
                yield event
        finally:
            if not self._loop.is_closed():  # else the stream has ended with it
                self._wait(events.aclose())

    def list_engines(self) -> v1.ListEnginesResponse:
        return self._wait(self._transport.list_engines())

    def close(self) -> None:
        if self._thread.is_alive():
            self._wait(self._transport.close())
            self._end()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl+C reaches the caller's thread only; the work must end as well
            future.cancel()
            raise

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


async def _call(make: Callable[[], T]) -> T:
    return make()


async def _next(events: AsyncIterator[T]) -> T | None:
    return await anext(events, None)
