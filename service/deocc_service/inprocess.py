"""The service without a server: the client's transport straight into the core, so that the bytes are the same."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

from deocc.errors import DeoccError, InvalidOption, ServerError, error_from_reason
from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines import errors as engine_errors
from deocc_service.core import Core
from deocc_service.engine import Load, LocalEngine, bundle_loader
from deocc_service.settings import Settings

__all__ = ["InProcessTransport", "client_error", "open_transport", "read_settings"]


class InProcessTransport:
    """An `AsyncTransport`. The engine is loaded by the first call that needs it.

    Args:
        timeout: seconds for one call; None for ever.
    """

    def __init__(self, settings: Settings, load: Load, timeout: float | None = None) -> None:
        self._core = Core(settings.model_copy(update={"request_seconds": None}))  # nobody else waits
        self._load = load
        self._timeout = timeout
        self._loading = asyncio.Lock()

    async def upload(self, content: bytes) -> pb.UploadImageResponse:
        with _client_errors():
            return await self._core.upload(_once(content))

    async def segment(self, request: pb.SegmentRequest) -> pb.SegmentResponse:
        with _client_errors():
            return await (await self._ready()).segment(request, self._timeout)

    async def complete(self, request: pb.CompleteRequest) -> pb.CompleteResponse:
        with _client_errors():
            return await (await self._ready()).complete(request, self._timeout)

    async def complete_stream(
        self, request: pb.CompleteStreamRequest
    ) -> AsyncGenerator[pb.CompleteStreamResponse, None]:
        with _client_errors():
            core = await self._ready()
            async with aclosing(core.complete_stream(request, self._timeout)) as messages:
                async for message in messages:
                    yield message

    async def list_engines(self) -> pb.ListEnginesResponse:
        with _client_errors():
            return await (await self._ready()).list_engines()

    async def close(self) -> None:
        if isinstance(self._core.engine, LocalEngine):
            self._core.engine.close()

    async def _ready(self) -> Core:
        async with self._loading:
            if self._core.engine is None:
                self._core.engine = await asyncio.to_thread(LocalEngine, self._load, self._core.settings)
        return self._core


def open_transport(engine: str | None, timeout: float | None) -> InProcessTransport:
    """The entry point ``transport`` of the client's group ``deocc.local``.

    Args:
        engine: name or path of a bundle; None: what the settings say.

    Raises:
        InvalidOption: a ``DEOCC_`` variable is unknown or unfit.
    """
    settings = read_settings() if engine is None else read_settings(engine=engine)
    return InProcessTransport(settings, bundle_loader(settings), timeout)


def read_settings(**overrides: object) -> Settings:
    """`Settings.read`, raising the client's InvalidOption."""
    try:
        return Settings.read(os.environ, **overrides)
    except ValueError as error:
        raise InvalidOption(f"the settings are wrong: {error}") from error


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


@contextmanager
def _client_errors() -> Iterator[None]:
    """The client's error for the engines'. Nothing is hidden: there is no log to look into, and nobody to hide from."""
    try:
        yield
    except engine_errors.DeoccError as error:
        raise client_error(error) from error
    except DeoccError:
        raise
    except Exception as error:
        raise ServerError(f"the engine failed: {type(error).__name__}: {error}") from error


def client_error(error: engine_errors.DeoccError) -> DeoccError:
    """The same reason, message and field in the client's tree."""
    retry_after = error.retry_after if isinstance(error, engine_errors.Overloaded) else None
    return error_from_reason(error.reason, error.message, field=error.field, retry_after=retry_after)
