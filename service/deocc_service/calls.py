"""One request of either protocol: its id, its time, its line in the log."""

from __future__ import annotations

import re
import sys
import time
import uuid
from contextvars import ContextVar

import structlog

from deocc_engines.errors import EngineFailure
from deocc_service.errors import public

__all__ = ["Call", "configure_log", "note", "under_licence"]

ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_call: ContextVar[Call | None] = ContextVar("deocc_call", default=None)


class Call:
    """Bound to the context of its task; tasks started from there share it.

    Attributes:
        request_id: the caller's if it is harmless, else a new one.
        terms: of the engine that answers, as HTTP headers and gRPC metadata; empty until it is known.
    """

    def __init__(self, protocol: str, route: str, request_id: str | None) -> None:
        self.request_id = request_id if request_id and ACCEPTED_ID.fullmatch(request_id) else uuid.uuid4().hex
        self.notes: dict[str, object] = {}
        self.terms: tuple[tuple[str, str], ...] = ()
        self._protocol = protocol
        self._route = route
        self._started = time.perf_counter()
        _call.set(self)

    def failed(self, error: BaseException) -> None:
        """Notes an error for the log line; what we did not foresee with its traceback."""
        shown = public(error)
        self.notes["error"] = shown.reason
        if isinstance(shown, EngineFailure):
            self.notes["exc_info"] = error

    def log(self, status: str | int) -> None:
        """The line of this request."""
        logger = structlog.get_logger("deocc")
        (logger.error if "exc_info" in self.notes else logger.info)(
            "request",
            request_id=self.request_id,
            protocol=self._protocol,
            route=self._route,
            status=status,
            milliseconds=round(1000 * (time.perf_counter() - self._started), 1),
            **self.notes,
        )


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


def configure_log() -> None:
    """JSON lines on stderr. Called once by a host."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
