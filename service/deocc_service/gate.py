"""gRPC's gate: keys are asked for before a message is read; health is for everybody."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from deocc_engines.errors import DeadlineExceeded, DeoccError, InvalidInput, RateLimited, Unauthenticated
from deocc_service.auth import Guard
from deocc_service.calls import Call, caller, coming
from deocc_service.errors import public, rpc_status, status_of

__all__ = ["DETAILS", "HEALTH", "REQUEST_ID", "Gate", "metadata_of", "refuse"]

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
REQUEST_ID = "x-request-id"
DETAILS = "grpc-status-details-bin"


def metadata_of(pairs: Any) -> dict[str, str]:
    """The texts among a call's metadata."""
    return {key: value for key, value in pairs or () if isinstance(value, str)}


def refuse(context: Any, error: DeoccError, *, counted: bool = True) -> None:
    """Ends a call with a typed status before the servicer has seen it."""
    call = Call("grpc", "gate", metadata_of(context.invocation_metadata()))
    shown = public(error)
    status = status_of(shown)
    context.set_code(status.code)
    context.set_details(shown.message)
    details = rpc_status(shown, call.request_id).SerializeToString()
    context.set_trailing_metadata(((REQUEST_ID, call.request_id), (DETAILS, details)))
    call.failed(error)
    if counted:
        call.count(status.code.name)
    call.log(status.code.name)


class Gate(grpc.aio.ServerInterceptor):
    """Of a grpc.aio server. Every call becomes one with a stream of messages, of which the first is read when the key
    is known: what is turned away is not even received. A message that makes no sense gets a typed error too.

    Args:
        body_seconds: in which a message must have come.
    """

    def __init__(self, guard: Guard, body_seconds: float) -> None:
        self._guard, self._body_seconds = guard, body_seconds

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(f"/{HEALTH}/"):
            return handler
        inner = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def requests(raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
            async for message in raw:
                try:
                    given = handler.request_deserializer(message)
                except DecodeError:
                    raise InvalidInput("the message cannot be read") from None
                yield given

        async def answers(raw: AsyncIterator[bytes], context: Any) -> AsyncGenerator[Any, None]:
            authorization = metadata_of(context.invocation_metadata()).get("authorization")
            try:
                with self._guard.admitted(authorization) as name:
                    caller.set(name)
                    given = requests(raw)
                    if not handler.request_streaming:
                        async with coming(self._body_seconds):
                            given = await anext(given)
                    if handler.response_streaming:
                        async with aclosing(inner(given, context)) as messages:
                            async for message in messages:
                                yield message
                    else:
                        yield await inner(given, context)
            except (Unauthenticated, RateLimited, InvalidInput, DeadlineExceeded) as error:
                refuse(context, error)
            except StopAsyncIteration:
                refuse(context, InvalidInput("there is no message"))

        async def answer(raw: AsyncIterator[bytes], context: Any) -> Any:
            async with aclosing(answers(raw, context)) as messages:
                return await anext(messages, None)

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(answers, None, handler.response_serializer)
        # A call that was refused has no message to serialise.
        serializer = handler.response_serializer
        return grpc.stream_unary_rpc_method_handler(answer, None, lambda m: b"" if m is None else serializer(m))
