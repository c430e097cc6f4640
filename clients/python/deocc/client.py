"""The client: what a caller says in, what a caller sees out. `requests` and `results` translate, transports carry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from types import TracebackType
from typing import Self, Unpack

from deocc.connection import Connection
from deocc.engines import Engine
from deocc.errors import ServerError
from deocc.events import Event, event_from_message
from deocc.images import ImageLike, image_content
from deocc.requests import CompleteArguments, PromptArguments, complete_request, segment_request, stream_request
from deocc.results import Completion, Segmentation, UploadedImage
from deocc.retry import RetryPolicy
from deocc.transport import AsyncTransport, Transport
from deocc.v1 import deocclusion_pb2 as v1

__all__ = ["AsyncClient", "Client"]

TIMEOUT = 600.0  # seconds; a laptop's CPU takes minutes for many samples
RETRIES = 3


class Client:
    """Gives partly hidden objects back whole. Safe to share between threads; use it in a `with`.

    Args:
        url: of the service, by HTTP; http://127.0.0.1:8000 if no other way is named.
        grpc: "host:port" of the service, by gRPC; "grpcs://host:port" for TLS.
        local: no service: the engines of this machine, in this process (needs ``pip install 'deocc[serve]'``).
        engine: its name or id at the service; in process the name or path of its bundle. None: the default.
        timeout: seconds for one call; None for ever.
        retries: further attempts when the service has no room or is not there.
        api_key: of the service, if it asks for one.
        headers: sent with every call.
        transport: instead of all this, something that carries messages, such as a test's fake.

    Raises:
        ValueError: more than one way was named.
        NotInstalled, NotFound, InvalidBundle: `local`, and there is no such engine on this machine.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        grpc: str | None = None,
        local: bool = False,
        engine: str | None = None,
        timeout: float | None = TIMEOUT,
        retries: int = RETRIES,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: Transport | None = None,
    ) -> None:
        connection = Connection(url, grpc, local, engine, timeout, _headers(api_key, headers))
        self._transport = connection.open() if transport is None else transport
        self._engine_id = connection.engine_id
        self._retry = RetryPolicy(retries + 1)

    def upload(self, image: ImageLike) -> UploadedImage:
        """Sends an image once, to be used in many calls."""
        response = self._retry.call(self._transport.upload, image_content(image))
        return UploadedImage.from_message(response)

    def segment(self, image: ImageLike, **prompt: Unpack[PromptArguments]) -> Segmentation:
        """What is visible of the object: candidate masks, best first.

        Args:
            image: path, http(s) address, bytes, file, PIL image, uint8 array, or UploadedImage.
            points: (x, y) or (x, y, label) in pixels of the upright image; label 0: not on the object.
            box: half-open (x_min, y_min, x_max, y_max).
            mask: a rough mask to refine, the size of the image; stands alone.

        Raises:
            DeoccError: see `deocc.errors`.
            OSError: a file cannot be read.
        """
        request = segment_request(image, self._engine_id, **prompt)
        return Segmentation.from_message(self._retry.call(self._transport.segment, request))

    def complete(self, image: ImageLike, **arguments: Unpack[CompleteArguments]) -> Completion:
        """The whole object, as it would look with nothing in front of it.

        Args:
            image, points, box: as in `segment`.
            mask: what is visible of the object, instead of points and box.
            text: what the object is, in a few words.
            preset: one of the engine's, for what is left out of the following; see `engines`.
            num_samples: how many different completions. 1 if left out.
            seed: unsigned 32 bit; the same request with the same seed gives the same bytes.
            steps: denoising steps of each of the two stages.
            guidance_image, guidance_text: guidance scales; both 1: one forward pass a step.
            local_strength: in [0, 1]; 0 leaves the second, finer stage out.
            draws: each sample is the mean of so many: likelier shapes and colours, less variety among samples.
            keep_visible: keep the photo's own pixels where the object is visible. True if left out.
            output: "full" for pictures the size of the image, "crop" for the object's box alone.
            priority: "low" where nobody waits, "high" where somebody does: a share of the service, a quarter or four
                times the usual one. It changes when the answer comes, never what it is.

        Raises:
            DeoccError: see `deocc.errors`.
            OSError: a file cannot be read.
        """
        request = complete_request(image, self._engine_id, **arguments)
        return Completion.from_message(self._retry.call(self._transport.complete, request))

    def stream(
        self, image: ImageLike, *, preview_every: int = 0, **arguments: Unpack[CompleteArguments]
    ) -> Generator[Event, None, None]:
        """As `complete`, telling what happens on the way; the last event is the Completion.

        Closing the generator stops the work at the service.

        Args:
            preview_every: a Preview every so many steps; 0 for none.
        """
        request = stream_request(complete_request(image, self._engine_id, **arguments), preview_every)
        return self._events(request)

    def engines(self) -> tuple[Engine, ...]:
        """What runs at the service, with defaults and limits."""
        response = self._retry.call(lambda _: self._transport.list_engines(), None)
        return tuple(Engine.from_message(engine) for engine in response.engines)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _events(self, request: v1.CompleteStreamRequest) -> Generator[Event, None, None]:
        message, messages = self._retry.call(self._begin, request)
        with closing(messages):
            while message is not None:
                event = event_from_message(message)
                if isinstance(event, Completion):
                    for _ in messages:  # to the regular end, which leaves the connection whole
                        pass
                    yield event
                    return
                if event is not None:
                    yield event
                message = next(messages, None)
        raise ServerError("the stream ended before its result")

    def _begin(
        self, request: v1.CompleteStreamRequest
    ) -> tuple[v1.CompleteStreamResponse | None, Generator[v1.CompleteStreamResponse, None, None]]:
        # Up to the first message a failed stream may be tried again unnoticed.
        messages = self._transport.complete_stream(request)
        return next(messages, None), messages


class AsyncClient:
    """`Client` for asyncio, with the same arguments, methods and errors. Use it in an `async with`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        grpc: str | None = None,
        local: bool = False,
        engine: str | None = None,
        timeout: float | None = TIMEOUT,
        retries: int = RETRIES,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: AsyncTransport | None = None,
    ) -> None:
        connection = Connection(url, grpc, local, engine, timeout, _headers(api_key, headers))
        self._transport = connection.open_async() if transport is None else transport
        self._engine_id = connection.engine_id
        self._retry = RetryPolicy(retries + 1)

    async def upload(self, image: ImageLike) -> UploadedImage:
        """See Client.upload."""
        content = await asyncio.to_thread(image_content, image)
        return UploadedImage.from_message(await self._retry.call_async(self._transport.upload, content))

    async def segment(self, image: ImageLike, **prompt: Unpack[PromptArguments]) -> Segmentation:
        """See Client.segment."""
        request = await asyncio.to_thread(segment_request, image, self._engine_id, **prompt)
        return Segmentation.from_message(await self._retry.call_async(self._transport.segment, request))

    async def complete(self, image: ImageLike, **arguments: Unpack[CompleteArguments]) -> Completion:
        """See Client.complete."""
        request = await asyncio.to_thread(complete_request, image, self._engine_id, **arguments)
        return Completion.from_message(await self._retry.call_async(self._transport.complete, request))

    async def stream(
        self, image: ImageLike, *, preview_every: int = 0, **arguments: Unpack[CompleteArguments]
    ) -> AsyncGenerator[Event, None]:
        """See Client.stream."""
        unary = await asyncio.to_thread(complete_request, image, self._engine_id, **arguments)
        message, messages = await self._retry.call_async(self._begin, stream_request(unary, preview_every))
        async with aclosing(messages):
            while message is not None:
                event = event_from_message(message)
                if isinstance(event, Completion):
                    async for _ in messages:  # to the regular end, which leaves the connection whole
                        pass
                    yield event
                    return
                if event is not None:
                    yield event
                message = await anext(messages, None)
        raise ServerError("the stream ended before its result")

    async def engines(self) -> tuple[Engine, ...]:
        """See Client.engines."""
        response = await self._retry.call_async(lambda _: self._transport.list_engines(), None)
        return tuple(Engine.from_message(engine) for engine in response.engines)

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _begin(
        self, request: v1.CompleteStreamRequest
    ) -> tuple[v1.CompleteStreamResponse | None, AsyncGenerator[v1.CompleteStreamResponse, None]]:
        messages = self._transport.complete_stream(request)
        return await anext(messages, None), messages


def _headers(api_key: str | None, headers: Mapping[str, str] | None) -> dict[str, str]:
    return {**(headers or {}), **({} if api_key is None else {"authorization": f"Bearer {api_key}"})}
