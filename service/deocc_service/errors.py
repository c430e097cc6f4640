"""The one boundary between the error tree of deocc and the two protocols."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import grpc
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from deocc_engines.errors import (
    Cancelled,
    DeadlineExceeded,
    DeoccError,
    EngineFailure,
    InvalidBundle,
    InvalidInput,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)

__all__ = ["STATUS", "Status", "public", "reason_type", "rpc_status", "status_of", "to_problem"]

DOMAIN = "deocc"


@dataclass(frozen=True)
class Status:
    """What one kind of error is on the wire."""

    code: grpc.StatusCode
    http: int
    title: str


STATUS: dict[type[DeoccError], Status] = {
    InvalidInput: Status(grpc.StatusCode.INVALID_ARGUMENT, 400, "The request is wrong"),
    TooLarge: Status(grpc.StatusCode.INVALID_ARGUMENT, 413, "Over a limit"),
    UnsupportedMedia: Status(grpc.StatusCode.INVALID_ARGUMENT, 415, "Unsupported media type"),
    Unauthenticated: Status(grpc.StatusCode.UNAUTHENTICATED, 401, "A key is needed"),
    NotFound: Status(grpc.StatusCode.NOT_FOUND, 404, "Not found"),
    Overloaded: Status(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "No room now"),
    DeadlineExceeded: Status(grpc.StatusCode.DEADLINE_EXCEEDED, 504, "Out of time"),
    Cancelled: Status(grpc.StatusCode.CANCELLED, 499, "Cancelled by the caller"),
    Unavailable: Status(grpc.StatusCode.UNAVAILABLE, 503, "Not ready"),
    InvalidBundle: Status(grpc.StatusCode.FAILED_PRECONDITION, 500, "The engine cannot be used"),
    EngineFailure: Status(grpc.StatusCode.INTERNAL, 500, "The engine failed"),
}


def public(error: BaseException) -> DeoccError:
    """What the caller may know: neither paths nor tracebacks of what we did not foresee."""
    if isinstance(error, asyncio.CancelledError):
        return Cancelled("the request was cancelled")
    if isinstance(error, DeoccError) and not isinstance(error, EngineFailure):
        return error
    return EngineFailure("the engine failed; the request id names the entry in the service's log")


def status_of(error: DeoccError) -> Status:
    """The entry of the closest ancestor."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), STATUS[EngineFailure])


def reason_type(reason: str) -> str:
    """The problem type of a reason."""
    return f"urn:deocc:error:{reason.lower().replace('_', '-')}"


def retry_after(error: DeoccError) -> int | None:
    """Whole seconds, or None if trying again does not help by itself."""
    return max(1, math.ceil(error.retry_after)) if isinstance(error, Overloaded) else None


def to_problem(error: DeoccError, request_id: str) -> dict[str, object]:
    """RFC 9457 members."""
    status = status_of(error)
    members = {
        "type": reason_type(error.reason),
        "title": status.title,
        "status": status.http,
        "detail": error.message,
        "reason": error.reason,
        "field": error.field,
        "request_id": request_id,
        "retry_after": retry_after(error),
    }
    return {name: value for name, value in members.items() if value is not None}


def rpc_status(error: DeoccError, request_id: str) -> status_pb2.Status:
    """google.rpc.Status for the trailing metadata ``grpc-status-details-bin``."""
    details = status_pb2.Status(code=code_pb2.Code.Value(status_of(error).code.name), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if error.field:
        info.metadata["field"] = error.field
    details.details.add().Pack(info)
    details.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    if error.field and isinstance(error, InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if (seconds := retry_after(error)) is not None:
        delay = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds))
        details.details.add().Pack(delay)
    return details
