"""gRPC, blocking and asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from deocc.errors import ConnectionFailed, DeadlineExceeded, DeoccError, error_from_reason
from deocc.v1 import deocclusion_pb2 as v1
from deocc.v1.deocclusion_pb2_grpc import DeocclusionServiceStub

__all__ = ["AsyncGrpcTransport", "GrpcTransport", "error_of_call"]

if TYPE_CHECKING:  # the stubs' own name for the asyncio flavour; at run time it is the same class
    from deocc.v1.deocclusion_pb2_grpc import DeocclusionServiceAsyncStub

DOMAIN = "deocc"
CHUNK = 1024 * 1024  # bytes of one upload message
# Eight large samples pass gRPC's default of 4 MiB; the service bounds what it sends by its own limits.
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

# For statuses that are not deocc's own: a proxy's, or gRPC's.
_REASON_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_INPUT",
    grpc.StatusCode.OUT_OF_RANGE: "INVALID_INPUT",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "INVALID_INPUT",
    grpc.StatusCode.NOT_FOUND: "NOT_FOUND",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "OVERLOADED",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    grpc.StatusCode.CANCELLED: "CANCELLED",
    grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
}


class GrpcTransport:
    """Blocking.

    Args:
        target: "host:port", in clear; "grpcs://host:port" for TLS.
        timeout: seconds for a whole call; None for ever.
        headers: metadata sent with every call, e.g. an authorization.
    """

    def __init__(self, target: str, *, timeout: float | None, headers: Mapping[str, str] | None = None) -> None:
        address, secure = _address(target)
        self._channel = (
            grpc.secure_channel(address, grpc.ssl_channel_credentials(), options=OPTIONS)
            if secure
            else grpc.insecure_channel(address, options=OPTIONS)
        )
        self._stub = DeocclusionServiceStub(self._channel)
        self._timeout = timeout
        self._metadata = _metadata(headers)

    def upload(self, content: bytes) -> v1.UploadImageResponse:
        with _call_errors():
            return self._stub.UploadImage(_chunks(content), timeout=self._timeout, metadata=self._metadata)

    def segment(self, request: v1.SegmentRequest) -> v1.SegmentResponse:
        with _call_errors():
            return self._stub.Segment(request, timeout=self._timeout, metadata=self._metadata)

    def complete(self, request: v1.CompleteRequest) -> v1.CompleteResponse:
        with _call_errors():
            return self._stub.Complete(request, timeout=self._timeout, metadata=self._metadata)

    def list_engines(self) -> v1.ListEnginesResponse:
        with _call_errors():
            return self._stub.ListEngines(v1.ListEnginesRequest(), timeout=self._timeout, metadata=self._metadata)

    def complete_stream(self, request: v1.CompleteStreamRequest) -> Generator[v1.CompleteStreamResponse, None, None]:
        call = self._stub.CompleteStream(request, timeout=self._timeout, metadata=self._metadata)
        try:
            with _call_errors():
                yield from call
        finally:
            call.cancel()  # nothing to cancel if it has ended

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport:
    """The same for asyncio."""

    def __init__(self, target: str, *, timeout: float | None, headers: Mapping[str, str] | None = None) -> None:
        address, secure = _address(target)
        self._channel = (
            grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(), options=OPTIONS)
            if secure
            else grpc.aio.insecure_channel(address, options=OPTIONS)
        )
        self._stub = cast("DeocclusionServiceAsyncStub", DeocclusionServiceStub(self._channel))
        self._timeout = timeout
        self._metadata = _metadata(headers)

    async def upload(self, content: bytes) -> v1.UploadImageResponse:
        with _call_errors():
            return await self._stub.UploadImage(_chunks(content), timeout=self._timeout, metadata=self._metadata)

    async def segment(self, request: v1.SegmentRequest) -> v1.SegmentResponse:
        with _call_errors():
            return await self._stub.Segment(request, timeout=self._timeout, metadata=self._metadata)

    async def complete(self, request: v1.CompleteRequest) -> v1.CompleteResponse:
        with _call_errors():
            return await self._stub.Complete(request, timeout=self._timeout, metadata=self._metadata)

    async def list_engines(self) -> v1.ListEnginesResponse:
        with _call_errors():
            return await self._stub.ListEngines(v1.ListEnginesRequest(), timeout=self._timeout, metadata=self._metadata)

    async def complete_stream(
        self, request: v1.CompleteStreamRequest
    ) -> AsyncGenerator[v1.CompleteStreamResponse, None]:
        call = self._stub.CompleteStream(request, timeout=self._timeout, metadata=self._metadata)
        try:
            with _call_errors():
                async for message in call:
                    yield message
        finally:
            call.cancel()  # nothing to cancel if it has ended

    async def close(self) -> None:
        await self._channel.close()


def error_of_call(call: grpc.Call) -> DeoccError:
    """The error behind a call that ended with a status other than OK."""
    info, asked, delay = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo(), error_details_pb2.RetryInfo()
    for detail in _details(call):
        for message in (info, asked, delay):
            detail.Unpack(message)
    message = call.details() or call.code().name
    if info.domain != DOMAIN:
        if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("the time that the caller gave is over")
        if call.code() is grpc.StatusCode.UNAVAILABLE and not call.trailing_metadata():  # nobody answered
            return ConnectionFailed(message)
        return error_from_reason(_REASON_BY_CODE.get(call.code(), "ENGINE_FAILURE"), message)
    return error_from_reason(
        info.reason,
        message,
        field=info.metadata.get("field"),
        request_id=asked.request_id,
        retry_after=delay.retry_delay.ToTimedelta().total_seconds() if delay.HasField("retry_delay") else None,
    )


def _details(call: grpc.Call) -> Iterator[any_pb2.Any]:
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):  # details that contradict the status, or are none: the status stands alone
        return
    if status is not None:
        yield from status.details


@contextmanager
def _call_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:  # in fact always a Call too, as gRPC documents
        raise error_of_call(cast("grpc.Call", error)) from error


def _address(target: str) -> tuple[str, bool]:
    for scheme, secure in (("grpcs://", True), ("grpc://", False)):
        if target.startswith(scheme):
            return target.removeprefix(scheme), secure
    return target, False


def _metadata(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple((key.lower(), value) for key, value in (headers or {}).items())


def _chunks(content: bytes) -> Iterator[v1.UploadImageRequest]:
    for start in range(0, len(content), CHUNK) or (0,):
        yield v1.UploadImageRequest(content=content[start : start + CHUNK])
