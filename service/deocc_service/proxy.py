"""What Ray Serve's gRPC proxy lacks: health, deadlines, typed errors, and staying on the loopback.

`install` is named in `grpc_servicer_functions`, so Serve calls it in the proxy's process with the proxy's own server
before it starts. It leans on `service_handler_factory`, which is semi-private: Ray is pinned, and contract
tests say when it changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from deocc_engines.errors import (
    Cancelled,
    DeadlineExceeded,
    DeoccError,
    EngineFailure,
    InvalidInput,
    Overloaded,
    TooLarge,
    Unavailable,
)
from deocc_service.calls import Call, configure_log
from deocc_service.errors import public, rpc_status, status_of
from deocc_service.servicer import REMAINING, REQUEST_ID, SERVICE
from deocc_service.settings import Settings

__all__ = ["APP", "install"]

APP = "deocc"  # the Serve application
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
PROBE_SECONDS = 1.0
DETAILS = "grpc-status-details-bin"
LOOPBACK = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "ipv6:[::ffff:127.", "ipv6:%5B::ffff:127.", "unix:")

SERVE_ERRORS = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded("no room now; try again later"),
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded("the time that the caller gave is over"),
    grpc.StatusCode.CANCELLED: Cancelled("the request was cancelled"),
    grpc.StatusCode.UNAVAILABLE: Unavailable("the service is not ready"),
    grpc.StatusCode.NOT_FOUND: Unavailable(
        "the service is not ready"
    ),  # the application is not deployed yet, or no more
}


def install(servicer: Any, server: Any) -> None:
    """Registers our service and health at a proxy's server."""
    configure_log()
    settings = Settings.handed_down()
    server.service_handler_factory = _guarded(server.service_handler_factory, settings)
    pb_grpc.add_DeocclusionServiceServicer_to_server(servicer, server)
    server.add_passthrough_service(HEALTH)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    # The reference keeps the task alive as long as the server.
    server.deocc_health_probe = asyncio.get_running_loop().create_task(_probe(health))


async def _probe(health: health_aio.HealthServicer) -> None:
    """Keeps the health status true: serving when the edge says that the models answer."""
    from ray import serve

    while True:
        ready = False
        try:
            async with asyncio.timeout(5):
                ready = bool(await serve.get_app_handle(APP).ready.remote())
        except Exception:  # noqa: S110 - whatever is wrong: it is not serving
            pass
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await health.set(service, status)
        await asyncio.sleep(PROBE_SECONDS)


class _Context:
    """The proxy's context with one more line of metadata: the seconds that are left."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...]:
        kept = tuple((key, value) for key, value in self._inner.invocation_metadata() or () if key != REMAINING)
        remaining = self._inner.time_remaining()
        return kept if remaining is None else (*kept, (REMAINING, f"{remaining:.6f}"))


def _guarded(factory: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    local_only = settings.grpc_host in ("127.0.0.1", "::1", "localhost")

    def refusal(request: Any, context: Any) -> DeoccError | None:
        # Serve binds every interface, whatever it is told.
        if local_only and not context.peer().startswith(LOOPBACK):
            return InvalidInput("this service answers on the loopback only")
        if hasattr(request, "ByteSize") and request.ByteSize() > settings.max_body:
            return TooLarge(f"at most {settings.max_body} bytes are accepted")
        return None

    def guarded(service_method: str, streaming_type: Any) -> Callable[..., Any]:
        inner = factory(service_method=service_method, streaming_type=streaming_type)

        async def unary(request: Any, context: Any) -> bytes:
            if (refused := refusal(request, context)) is not None:
                _refuse(context, refused)
                return b""
            response: bytes = await inner(request, _Context(context))
            _translate(context)
            return response

        async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
            if (refused := refusal(request, context)) is not None:
                _refuse(context, refused)
                return
            async for message in inner(request, _Context(context)):
                if message:  # the empty one only carried the status out of the replica
                    yield message
            _translate(context)

        return stream if streaming_type.name.endswith("_STREAM") else unary

    return guarded


def _translate(context: Any) -> None:
    """Serve's own errors as ours: its texts name actors, paths and addresses."""
    if context.code() in (None, grpc.StatusCode.OK):
        return
    if all(key != DETAILS for key, _ in context.trailing_metadata() or ()):
        _refuse(context, SERVE_ERRORS.get(context.code(), EngineFailure("Serve failed")))


def _refuse(context: Any, error: DeoccError) -> None:
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    call = Call("grpc", "proxy", metadata.get(REQUEST_ID))
    shown = public(error)
    status = status_of(shown)
    context.set_code(status.code)
    context.set_details(shown.message)
    details = rpc_status(shown, call.request_id).SerializeToString()
    context.set_trailing_metadata(((REQUEST_ID, call.request_id), (DETAILS, details)))
    call.failed(error)
    call.log(status.code.name)
