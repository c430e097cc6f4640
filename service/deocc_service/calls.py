"""One request of either protocol: its id, its time, its line in the log."""

from __future__ import annotations

import asyncio
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar

import structlog

from deocc_engines.errors import DeadlineExceeded, EngineFailure
from deocc_service import metrics
from deocc_service.errors import public
from deocc_service.tracing import Span, follow

__all__ = ["Call", "caller", "coming", "configure_log", "note", "under_licence"]

# What routes are called in metrics, on both protocols; everything else is "other".
METHODS = {
    "POST /v1/images": "UploadImage",
    "POST /v1/segment": "Segment",
    "POST /v1/complete": "Complete",
    "GET /v1/engines": "ListEngines",
    **{name: name for name in ("UploadImage", "Segment", "Complete", "CompleteStream", "ListEngines")},
}
REFUSALS = {"OVERLOADED", "DEADLINE_UNMEETABLE", "RATE_LIMITED", "UNAUTHENTICATED"}
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

caller: ContextVar[str | None] = ContextVar("deocc_caller", default=None)  # the name of the key
_call: ContextVar[Call | None] = ContextVar("deocc_call", default=None)


class Call:
    """Bound to the context of its task; tasks started from there share it.

    Args:
        headers: of HTTP, or gRPC's metadata: the id that the caller gives the request, and its trace.

    Attributes:
        request_id: the caller's if it is harmless, else a new one.
        terms: of the engine that answers, as HTTP headers and gRPC metadata; empty until it is known.
    """

    def __init__(self, protocol: str, route: str, headers: Mapping[str, str]) -> None:
        request_id = headers.get("x-request-id")
        self.request_id = request_id if request_id and ACCEPTED_ID.fullmatch(request_id) else uuid.uuid4().hex
        self.notes: dict[str, object] = {"key": name} if (name := caller.get()) else {}
        self.terms: tuple[tuple[str, str], ...] = ()
        self._protocol = protocol
        self._route = route
        self._started = time.perf_counter()
        _call.set(self)
        follow(headers)
        self._span = Span(METHODS[route], served=True) if route in METHODS else None

    def failed(self, error: BaseException) -> None:
        """Notes an error for the log line; what we did not foresee with its traceback."""
        shown = public(error)
        self.notes["error"] = shown.reason
        if isinstance(shown, EngineFailure):
            self.notes["exc_info"] = error

    def log(self, status: str | int) -> None:
        """The line of this request, and the end of its span."""
        code = self._code(status)
        if self._span is not None:
            if self._span.trace_id is not None:
                self.notes["trace_id"] = self._span.trace_id
            told = {"request_id": self.request_id, "protocol": self._protocol, "code": code}
            engine = {"engine": str(self.notes["engine"])} if "engine" in self.notes else {}
            self._span.end(None if code == "OK" else code, **told, **engine)
        logger = structlog.get_logger("deocc")
        (logger.error if "exc_info" in self.notes else logger.info)(
            "request",
            request_id=self.request_id,
            protocol=self._protocol,
            method=self._method,
            code=code,
            route=self._route,
            status=status,
            milliseconds=round(1000 * (time.perf_counter() - self._started), 1),
            **self.notes,
        )

    def count(self, status: str | int) -> None:
        """Its place in the metrics."""
        method, code = self._method, self._code(status)
        metrics.REQUESTS.add(protocol=self._protocol, method=method, code=code)
        metrics.REQUEST_SECONDS.observe(time.perf_counter() - self._started, protocol=self._protocol, method=method)
        if code in REFUSALS:
            metrics.REFUSALS.add(reason=code)
        if code == "CANCELLED":
            metrics.CANCELLATIONS.add(method=method)

    @property
    def _method(self) -> str:
        return METHODS.get(self._route, "other")

    def _code(self, status: str | int) -> str:
        plain = "OK" if status in ("OK", 200, 201, 304) else str(status)
        return str(self.notes.get("error", plain))


def note(**values: object) -> None:
    """Adds to the log line of the current request, if there is one."""
    call = _call.get()
    if call is not None:
        call.notes.update(values)


def under_licence(licence: str, *, commercial_use: bool) -> None:
    """Says in the metadata of the current answer, if there is one, what its engine may be used for."""
    call = _call.get()
    if call is not None:
        plain = licence.encode("ascii", "replace").decode()
        call.terms = (("x-deocc-licence", plain), ("x-deocc-commercial-use", str(commercial_use).lower()))


def configure_log(log_format: str = "json") -> None:
    """Lines on stderr. Called once by every process of a host.

    Args:
        log_format: "json", or "text" for people.
    """
    exceptions, renderer = structlog.processors.format_exc_info, structlog.processors.JSONRenderer()
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            *((exceptions, renderer) if log_format == "json" else (plain,)),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


@asynccontextmanager
async def coming(seconds: float) -> AsyncIterator[None]:
    """While a body, or a message, comes.

    Raises:
        DeadlineExceeded: it takes longer than that.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineExceeded("the body did not come in time") from None
