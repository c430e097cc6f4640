"""The gRPC face of the service, the same on grpc.aio and behind Ray Serve's gRPC proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Protocol, Self

import grpc

from deocc.v1 import deocclusion_pb2 as pb
from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from deocc_service.calls import Call, caller
from deocc_service.core import Core
from deocc_service.errors import public, rpc_status, status_of
from deocc_service.gate import DETAILS, REQUEST_ID, metadata_of

__all__ = ["KEY", "REMAINING", "Context", "Servicer"]

SERVICE = "deocc.v1.DeocclusionService"
# Ray Serve hides the deadline from replicas; the hook in its proxy passes the seconds left in this metadata.
REMAINING = "deocc-remaining-seconds"
KEY = "deocc-key"  # from there too: the name of the key that the caller sent


class Context(Protocol):
    """What grpc.aio's and Ray Serve's contexts have in common."""

    def invocation_metadata(self) -> Any: ...
    def code(self) -> Any: ...
    def set_code(self, code: grpc.StatusCode) -> None: ...
    def set_details(self, details: str) -> None: ...
    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None: ...


class Boundary:
    """Turns whatever is raised inside into a gRPC status with details.

    It swallows the error: behind Ray Serve the details reach the client only if the method returns.
    """

    def __init__(self, method: str, context: Context) -> None:
        self._context = context
        metadata = metadata_of(context.invocation_metadata())
        if KEY in metadata and not hasattr(context, "time_remaining"):
            caller.set(metadata[KEY])
        self._call = Call("grpc", method, metadata)
        self.left = _left(context, metadata)

    async def __aenter__(self) -> Self:
        self._trail([])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            self.tell_terms()
            self._call.count("OK")
            self._call.log("OK")
            return False
        if isinstance(error, GeneratorExit | asyncio.CancelledError):
            self._call.count("CANCELLED")
            self._call.log("CANCELLED")
            return False
        shown = public(error)
        status = status_of(shown)
        self._context.set_code(status.code)
        self._context.set_details(shown.message)
        details = rpc_status(shown, self._call.request_id).SerializeToString()
        self._trail([(DETAILS, details)])
        self._call.failed(error)
        self._call.count(status.code.name)
        self._call.log(status.code.name)
        return isinstance(error, Exception)

    def tell_terms(self) -> None:
        """Those of the engine, once it is known. Behind Ray Serve a stream must say them before its last message."""
        self._trail([])

    def _trail(self, metadata: list[tuple[str, str | bytes]]) -> None:
        self._context.set_trailing_metadata([(REQUEST_ID, self._call.request_id), *self._call.terms, *metadata])


def _left(context: Context, metadata: dict[str, str]) -> float | None:
    time_remaining = getattr(context, "time_remaining", None)
    if time_remaining is not None:
        remaining: float | None = time_remaining()
        return remaining
    return float(metadata[REMAINING]) if REMAINING in metadata else None


class Servicer(pb_grpc.DeocclusionServiceServicer):
    """One small method a call. Ray Serve passes its context by the name `grpc_context`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def UploadImage(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[pb.UploadImageRequest], grpc_context: Any
    ) -> pb.UploadImageResponse:
        async with Boundary("UploadImage", grpc_context):
            return await self._core.upload(message.content async for message in request_iterator)
        return pb.UploadImageResponse()

    async def Segment(self, request: pb.SegmentRequest, grpc_context: Any) -> pb.SegmentResponse:  # noqa: N802
        async with Boundary("Segment", grpc_context) as boundary:
            return await self._core.segment(request, boundary.left)
        return pb.SegmentResponse()

    async def Complete(self, request: pb.CompleteRequest, grpc_context: Any) -> pb.CompleteResponse:  # noqa: N802
        async with Boundary("Complete", grpc_context) as boundary:
            return await self._core.complete(request, boundary.left)
        return pb.CompleteResponse()

    async def CompleteStream(  # noqa: N802
        self, request: pb.CompleteStreamRequest, grpc_context: Any
    ) -> AsyncIterator[pb.CompleteStreamResponse]:
        async with (
            Boundary("CompleteStream", grpc_context) as boundary,
            aclosing(self._core.complete_stream(request, boundary.left)) as messages,
        ):
            async for message in messages:
                boundary.tell_terms()
                yield message

    async def ListEngines(  # noqa: N802
        self, request: pb.ListEnginesRequest, grpc_context: Any
    ) -> pb.ListEnginesResponse:
        async with Boundary("ListEngines", grpc_context):
            return await self._core.list_engines()
        return pb.ListEnginesResponse()
