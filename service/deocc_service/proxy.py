"""What Ray Serve's proxies lack: health, deadlines, typed errors, staying on the loopback, and keeping to themselves.

`install` is named in `grpc_servicer_functions`, so Serve calls it in the proxy's process with the proxy's own server
before it starts. It leans on what is private there, `service_handler_factory`, `_override_method_handler` and the
generic handler's `_method_handlers`: Ray is pinned, and contract tests say when they change. `middlewares` is named in
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, so Serve puts what it gives before the HTTP proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from deocc_engines.errors import (
    Cancelled,
    DeadlineExceeded,
    DeoccError,
    EngineFailure,
    InvalidInput,
    Overloaded,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from deocc_service import metrics
from deocc_service.auth import Guard
from deocc_service.calls import coming, configure_log
from deocc_service.gate import DETAILS, HEALTH, metadata_of, refuse
from deocc_service.servicer import KEY, REMAINING, SERVICE
from deocc_service.settings import Settings
from deocc_service.tls import credentials

__all__ = ["APP", "install", "middlewares"]

APP = "deocc"  # the Serve application
PROBE_SECONDS = 1.0
LOOPBACK = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "ipv6:[::ffff:127.", "ipv6:%5B::ffff:127.", "unix:")

SERVE_ERRORS = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded("no room now; try again later"),
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded("the time that the caller gave is over"),
    grpc.StatusCode.CANCELLED: Cancelled("the request was cancelled"),
    grpc.StatusCode.UNAVAILABLE: Unavailable("the service is not ready"),
    # The edge never raises: it died, and another one is being started.
    grpc.StatusCode.INTERNAL: Unavailable("a part of the service was lost; the same request may be sent again"),
    # The application is not deployed yet, or no more.
    grpc.StatusCode.NOT_FOUND: Unavailable("the service is not ready"),
}


def install(servicer: Any, server: Any) -> None:
    """Registers our service and health at a proxy's server."""
    settings = Settings.handed_down()
    configure_log(settings.log_format)
    metrics.on_ray(replica=False)
    server.service_handler_factory = _guarded(server.service_handler_factory, settings)
    server._override_method_handler = _reading_late(server._override_method_handler)
    for (own,) in server.generic_rpc_handlers:  # Serve's, which names the application and was there before us
        own._method_handlers = {
            method: server._override_method_handler(method, handler) for method, handler in own._method_handlers.items()
        }
    pb_grpc.add_DeocclusionServiceServicer_to_server(servicer, server)
    server.add_passthrough_service(HEALTH)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if settings.tls:
        port = server.add_secure_port(f"{settings.grpc_host}:{settings.grpc_port}", credentials(settings))
        if port == 0:
            raise OSError(f"port {settings.grpc_port} is taken")
    # The reference keeps the task alive as long as the server.
    server.deocc_health_probe = asyncio.get_running_loop().create_task(_probe(health))


def middlewares() -> list[Middleware]:
    """What stands before the HTTP proxy."""
    return [Middleware(Silent)]


class Silent:
    """Answers itself where Serve would tell everybody, without a key, what is served."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        telling = scope["type"] == "http" and scope["path"] == "/-/routes"
        await (PlainTextResponse("Not Found", 404) if telling else self._app)(scope, receive, send)


def _reading_late(override: Callable[..., Any]) -> Callable[..., Any]:
    """Handlers that are given a stream even where there is one message, to read it when the caller is known.

    Not where many answer it: Serve would not hear any more that the caller leaves. What cannot be read is None, and an
    empty message in a stream of several.
    """

    def overridden(service_method: str, handler: Any) -> Any:
        read = handler.request_deserializer

        def reading(raw: bytes) -> Any:
            try:
                return read(raw)
            except DecodeError:
                return read(b"") if handler.request_streaming else None

        made = override(service_method, handler)._replace(request_deserializer=reading)
        if handler.request_streaming or handler.response_streaming:
            return made
        return made._replace(request_streaming=True, stream_unary=made.unary_unary)

    return overridden


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
    """The proxy's context with more metadata: the seconds that are left, and the name of the caller's key."""

    def __init__(self, inner: Any, key: str | None) -> None:
        self._inner, self._key = inner, key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...]:
        # What only we may say is dropped, and so is the key itself, which nobody behind here needs.
        ours = (REMAINING, KEY, "authorization")
        kept = tuple((key, value) for key, value in self._inner.invocation_metadata() or () if key not in ours)
        remaining = self._inner.time_remaining()
        told = () if remaining is None else ((REMAINING, f"{remaining:.6f}"),)
        return (*kept, *told, *(() if self._key is None else ((KEY, self._key),)))


def _guarded(factory: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    local_only = settings.grpc_host in ("127.0.0.1", "::1", "localhost")
    guard = Guard.of(settings.api_keys_file)

    def unheard(context: Any) -> DeoccError | None:
        # Serve binds every interface, whatever it is told, and always in clear.
        if local_only and not context.peer().startswith(LOOPBACK):
            return Unauthenticated("this service answers on the loopback only")
        if settings.tls and context.auth_context().get("transport_security_type") != [b"ssl"]:
            return Unauthenticated("this service answers over TLS only")
        return None

    def unfit(request: Any) -> DeoccError | None:
        if request is None:
            return InvalidInput("the message cannot be read, or there is none")
        if request.ByteSize() > settings.max_body:
            return TooLarge(f"at most {settings.max_body} bytes are accepted")
        return None

    @asynccontextmanager
    async def admitted(given: Any, context: Any, kind: str) -> AsyncIterator[Any]:
        """The request and the context to go on with; None if the call was refused."""
        refused = unheard(context)
        if refused is None:
            try:
                with guard.admitted(metadata_of(context.invocation_metadata()).get("authorization")) as name:
                    request = given
                    if kind == "UNARY_UNARY":
                        async with coming(settings.body_seconds):
                            request = await anext(aiter(given), None)
                    refused = None if kind.startswith("STREAM_") else unfit(request)
                    if refused is None:
                        yield request, _Context(context, name)
                        return
            except (Unauthenticated, RateLimited, DeadlineExceeded) as error:
                refused = error
        refuse(context, refused)
        yield None

    def guarded(service_method: str, streaming_type: Any) -> Callable[..., Any]:
        inner = factory(service_method=service_method, streaming_type=streaming_type)
        kind = streaming_type.name

        async def unary(given: Any, context: Any) -> bytes:
            async with admitted(given, context, kind) as call:
                if call is None:
                    return b""
                response: bytes = await inner(*call)
                _translate(context)
                return response

        async def stream(given: Any, context: Any) -> AsyncIterator[bytes]:
            async with admitted(given, context, kind) as call:
                if call is None:
                    return
                async for message in inner(*call):
                    if message:  # the empty one only carried the status out of the replica
                        yield message
                _translate(context)

        return stream if kind.endswith("_STREAM") else unary

    return guarded


def _translate(context: Any) -> None:
    """Serve's own errors as ours: its texts name actors, paths and addresses."""
    if context.code() in (None, grpc.StatusCode.OK):
        return
    if all(key != DETAILS for key, _ in context.trailing_metadata() or ()):
        error = SERVE_ERRORS.get(context.code(), EngineFailure("Serve failed"))
        refuse(context, error, counted=not isinstance(error, Cancelled))  # the edge has counted that
