"""The HTTP face of the service: the same requests and answers as gRPC, as JSON, protobuf, PNG or server-sent events."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines.errors import (
    Cancelled,
    DeoccError,
    InvalidInput,
    RateLimited,
    Unauthenticated,
    UnsupportedMedia,
)
from deocc_service import openapi
from deocc_service.auth import Guard
from deocc_service.body import chunks, media_type, message_from, uploaded
from deocc_service.calls import Call, caller, coming, note
from deocc_service.core import Core
from deocc_service.errors import public, reason_type, retry_after, status_of, to_problem
from deocc_service.page import add_page
from deocc_service.replies import (
    JSON,
    PNG,
    PROTOBUF,
    SSE,
    EventReply,
    binary_reply,
    json_reply,
    mask_reply,
    negotiate,
    png_reply,
    until_disconnect,
)

__all__ = ["build_http"]

HEALTH = ("/livez", "/readyz")
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    b"font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
DOCS_POLICY = POLICY.replace(b"'self';", b"'self' 'unsafe-inline';", 2)  # Swagger's page starts itself inline
SECURE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")
PROBLEM = "application/problem+json"
TIMEOUT = "x-deocc-timeout"
REPLIES: dict[str, Callable[[Any], Response]] = {JSON: json_reply, PROTOBUF: binary_reply}


def build_http(core: Core, *, name_requests: bool = True) -> FastAPI:
    """The whole application: API, probes, page and examples.

    Args:
        name_requests: add X-Request-Id to answers; Ray Serve's proxy does it by itself.
    """
    # Swagger's files from this machine: the page works without the internet, and tells nobody that it was opened.
    app = FastAPIOffline("/docs", None, title="deocc", version="1", description=openapi.DESCRIPTION)
    limit = core.settings.max_body

    @app.post("/v1/images", status_code=201, **openapi.IMAGES)
    async def images(request: Request) -> Response:
        """Stores an image, so that later requests can name it by `image_id`."""
        if media_type(request) == "multipart/form-data":
            content = uploaded(request, limit)
        elif media_type(request) in IMAGE_TYPES:
            content = chunks(request, core.settings.limits.max_bytes, field="content")
        else:
            raise UnsupportedMedia("send " + ", ".join(IMAGE_TYPES) + " or multipart/form-data")
        return json_reply(await core.upload(content), 201)

    @app.post("/v1/segment", **openapi.SEGMENT)
    async def segment(request: Request) -> Response:
        """What is visible of the object: candidate masks, best first."""
        timeout = _timeout(request)
        accepted = negotiate(request.headers.get("accept"), (JSON, PNG, PROTOBUF))
        async with coming(core.settings.body_seconds):
            message = await message_from(request, pb.SegmentRequest, limit)
        if accepted == PNG:
            message.mask_encoding = pb.MASK_ENCODING_PNG
        result = await until_disconnect(request.receive, core.segment(message, timeout))
        return REPLIES.get(accepted, mask_reply)(result)

    @app.post("/v1/complete", **openapi.COMPLETE)
    async def complete(request: Request) -> Response:
        """The whole object: RGBA pictures, best first."""
        timeout = _timeout(request)
        accepted = negotiate(request.headers.get("accept"), (JSON, PNG, PROTOBUF, SSE))
        async with coming(core.settings.body_seconds):
            message = await message_from(request, pb.CompleteStreamRequest, limit)
        if accepted == SSE:
            events = core.complete_stream(message, timeout)
            first = await until_disconnect(request.receive, anext(events))
            return EventReply(first, events, request.scope["deocc.call"])
        result = await until_disconnect(request.receive, core.complete(message, timeout))
        return REPLIES.get(accepted, png_reply)(result)

    @app.get("/v1/engines", **openapi.ENGINES)
    async def engines() -> Response:
        """The engines that this service runs, with their defaults and limits."""
        return json_reply(await core.list_engines())

    @app.get("/livez", **openapi.LIVEZ)
    async def livez() -> Response:
        """The process answers."""
        return JSONResponse({"status": "live"})

    @app.get("/readyz", **openapi.READYZ)
    async def readyz() -> Response:
        """The models answer, and the service is not shutting down."""
        ready = await core.ready()
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    add_page(app)
    _add_errors(app)
    app.add_middleware(Gate, guard=core.guard)
    app.add_middleware(SecureHeaders)
    app.add_middleware(Calls, name_requests=name_requests)
    return app


def _timeout(request: Request) -> float | None:
    """Seconds that the caller gives, from the header."""
    text = request.headers.get(TIMEOUT)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidInput("expected a positive number of seconds", field="X-Deocc-Timeout")
    return seconds


class Calls:
    """Gives each request its id and its line in the log, and each answer the terms of its engine."""

    def __init__(self, app: ASGIApp, name_requests: bool) -> None:
        self._app = app
        self._name_requests = name_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        call = Call("http", f"{scope['method']} {scope['path']}", headers)
        scope["deocc.call"] = call
        status = 0

        async def send_with_terms(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [*call.terms, *([("x-request-id", call.request_id)] if self._name_requests else [])]
                headers = [*message["headers"], *((name.encode(), value.encode()) for name, value in added)]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_with_terms)
        except asyncio.CancelledError as error:  # Serve does that when the caller leaves
            call.failed(error)
            raise
        finally:
            call.count(status)
            call.log(status)


class Gate:
    """Asks for a key before anything of a request is read; health is for everybody."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._guard.open or scope["path"] in HEALTH:
            await self._app(scope, receive, send)
            return
        authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        try:
            with self._guard.admitted(authorization) as name:
                caller.set(name)
                note(key=name)
                await self._app(scope, receive, send)
        except (Unauthenticated, RateLimited) as error:
            scope["deocc.call"].failed(error)
            await _problem(error, scope["deocc.call"].request_id)(scope, receive, send)


class SecureHeaders:
    """The page loads nothing from elsewhere, is framed by nobody, and leaks no addresses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = DOCS_POLICY if scope["path"].startswith("/docs") else POLICY
                headers = [*message["headers"], (b"content-security-policy", policy), *SECURE]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_secured if scope["type"] == "http" else send)


def _add_errors(app: FastAPI) -> None:
    async def on_error(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            error = Cancelled("the caller went away")
        request.scope["deocc.call"].failed(error)
        return _problem(public(error), request.scope["deocc.call"].request_id)

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        members = {
            "type": reason_type(status.name),
            "title": status.phrase,
            "status": status.value,
            "detail": status.description or status.phrase,
            "reason": status.name,
            "request_id": request.scope["deocc.call"].request_id,
        }
        return JSONResponse(members, status, error.headers, PROBLEM)

    async def on_validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fault = error.errors()[0]
        return await on_error(request, InvalidInput(fault["msg"], field=".".join(map(str, fault["loc"][1:]))))

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        DeoccError: on_error,
        ClientDisconnect: on_error,
        HTTPException: on_http_error,
        RequestValidationError: on_validation_error,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    # Starlette answers with the handler for Exception, but raises on; so the unforeseen is caught one layer further in.
    app.add_middleware(Unforeseen)


class Unforeseen:
    """The last resort: INTERNAL without a word about why."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            scope["deocc.call"].failed(error)
            await _problem(public(error), scope["deocc.call"].request_id)(scope, receive, send)


def _problem(error: DeoccError, request_id: str) -> Response:
    seconds = retry_after(error)
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    if isinstance(error, Unauthenticated):  # "Basic" makes browsers ask, so that the page works too
        headers["WWW-Authenticate"] = 'Bearer, Basic realm="deocc: any name, and an API key for password"'
    return JSONResponse(to_problem(error, request_id), status_of(error).http, headers, PROBLEM)
