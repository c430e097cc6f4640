"""The errors that a caller of the client can meet: one tree, the same over HTTP, gRPC and in process.

::

    DeoccError
    ├── InvalidInput            the request is wrong; sending it again will not help
    │   ├── InvalidImage        cannot be decoded, or is of a kind that is not accepted
    │   ├── InvalidPrompt       points, box or mask do not fit the image
    │   ├── InvalidOption       an option is out of range
    │   ├── UnsupportedMedia    the body is of a content type that is not accepted
    │   └── TooLarge            over a limit in bytes, pixels, points, samples, steps or characters
    ├── NotFound                no such uploaded image, or no such engine
    ├── Overloaded              no room now; `retry_after` says when to come back
    │   ├── DeadlineUnmeetable  what was accepted before leaves too little of the caller's time
    │   └── RateLimited         too many requests with this key
    ├── Unauthenticated         the service asks for a key, or does not know this one
    ├── DeadlineExceeded        the time that the caller gave is over
    ├── Cancelled               the call was cancelled
    ├── Unavailable             a model is not ready, or was lost
    │   └── ConnectionFailed    the service could not be reached, or the connection broke
    ├── NotInstalled            the engines are not installed on this machine
    └── ServerError             the service failed, or its answer cannot be understood
        └── InvalidBundle       an engine's bundle is incomplete, altered, or not for that machine
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = [
    "Cancelled",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DeadlineUnmeetable",
    "DeoccError",
    "InvalidBundle",
    "InvalidImage",
    "InvalidInput",
    "InvalidOption",
    "InvalidPrompt",
    "NotFound",
    "NotInstalled",
    "Overloaded",
    "RateLimited",
    "ServerError",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedMedia",
    "error_from_problem",
    "error_from_reason",
]


class DeoccError(Exception):
    """Base of all errors.

    Attributes:
        message: one sentence for a person.
        field: the request field at fault in wire names, e.g. ``"prompt.points[2].x"``.
        request_id: names the request in the service's log; None if it never reached the service.
        reason: the stable code for programs, e.g. ``"INVALID_PROMPT"``.
    """

    reason = "ERROR"

    def __init__(self, message: str, *, field: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.request_id = request_id

    def __reduce__(self) -> tuple[object, ...]:
        # The keyword-only arguments would be lost by Exception's own pickling.
        return (_restore, (type(self), self.message, self.__dict__))


def _restore(kind: type[DeoccError], message: str, state: dict[str, object]) -> DeoccError:
    error = kind.__new__(kind, message)
    error.args = (message,)
    error.__dict__.update(state)
    return error


class InvalidInput(DeoccError):
    """The request is wrong; sending it again will not help."""

    reason = "INVALID_INPUT"


class InvalidImage(InvalidInput):
    """The image cannot be decoded, or is of a kind that is not accepted."""

    reason = "INVALID_IMAGE"


class InvalidPrompt(InvalidInput):
    """Points, box or mask do not fit the image."""

    reason = "INVALID_PROMPT"


class InvalidOption(InvalidInput):
    """An option is out of range."""

    reason = "INVALID_OPTION"


class UnsupportedMedia(InvalidInput):
    """The body is of a content type that is not accepted."""

    reason = "UNSUPPORTED_MEDIA"


class TooLarge(InvalidInput):
    """Over a limit in bytes, pixels, points, samples, steps or characters."""

    reason = "TOO_LARGE"


class NotFound(DeoccError):
    """No such uploaded image, or no such engine."""

    reason = "NOT_FOUND"


class Overloaded(DeoccError):
    """No room now.

    Attributes:
        retry_after: seconds after which to try again; None if the service did not say.
    """

    reason = "OVERLOADED"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, field=field, request_id=request_id)
        self.retry_after = retry_after


class DeadlineUnmeetable(Overloaded):
    """The work would not end in the time that the caller gave; it was not begun."""

    reason = "DEADLINE_UNMEETABLE"


class RateLimited(Overloaded):
    """Too many requests with this key."""

    reason = "RATE_LIMITED"


class Unauthenticated(DeoccError):
    """The service asks for a key, or does not know this one."""

    reason = "UNAUTHENTICATED"


class DeadlineExceeded(DeoccError):
    """The time that the caller gave is over."""

    reason = "DEADLINE_EXCEEDED"


class Cancelled(DeoccError):
    """The call was cancelled."""

    reason = "CANCELLED"


class Unavailable(DeoccError):
    """A model is not ready, or was lost.

    Attributes:
        retry_after: seconds after which to try again; None if the service did not say.
    """

    reason = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, field=field, request_id=request_id)
        self.retry_after = retry_after


class ConnectionFailed(Unavailable):
    """The service could not be reached, or the connection broke."""

    reason = "CONNECTION_FAILED"


class NotInstalled(DeoccError):
    """The engines are not installed on this machine."""

    reason = "NOT_INSTALLED"


class ServerError(DeoccError):
    """The service failed, or its answer cannot be understood: a bug, but not the caller's."""

    reason = "ENGINE_FAILURE"


class InvalidBundle(ServerError):
    """An engine's bundle is incomplete, altered, or not for that machine."""

    reason = "INVALID_BUNDLE"


def _tree(kind: type[DeoccError]) -> Iterator[type[DeoccError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


_BY_REASON = {kind.reason: kind for kind in _tree(DeoccError)}

# For answers that are not deocc's own: a proxy's, an ingress's, a load balancer's.
_REASON_BY_STATUS = {
    401: Unauthenticated.reason,
    404: NotFound.reason,
    408: DeadlineExceeded.reason,
    413: TooLarge.reason,
    415: UnsupportedMedia.reason,
    429: Overloaded.reason,
    499: Cancelled.reason,
    500: Unavailable.reason,  # deocc's own failures say so in a problem object; a proxy's say that it lost the service
    502: Unavailable.reason,
    503: Unavailable.reason,
    504: DeadlineExceeded.reason,
}


def error_from_reason(
    reason: str,
    message: str,
    *,
    field: str | None = None,
    request_id: str | None = None,
    retry_after: float | None = None,
) -> DeoccError:
    """The error for a stable code; ServerError for a code that this client does not know."""
    kind = _BY_REASON.get(reason, ServerError)
    field, request_id = field or None, request_id or None
    if issubclass(kind, Overloaded | Unavailable):
        return kind(message, field=field, request_id=request_id, retry_after=retry_after)
    return kind(message, field=field, request_id=request_id)


def error_from_problem(
    status: int, problem: Mapping[str, object], *, retry_after: float | None = None, request_id: str | None = None
) -> DeoccError:
    """The error for an HTTP answer.

    Args:
        status: of the answer, or the problem's own where it came inside a stream.
        problem: the RFC 9457 object; empty if the answer carried none.
        retry_after: seconds, from the header.
        request_id: from the header, for answers without a problem object.
    """
    fallback = "INVALID_INPUT" if 400 <= status < 500 else "ENGINE_FAILURE"
    reason = problem.get("reason")
    if reason not in _BY_REASON:
        reason = _REASON_BY_STATUS.get(status, fallback)
    message = problem.get("detail") or problem.get("title") or f"the service answered with status {status}"
    told = problem.get("retry_after")
    return error_from_reason(
        str(reason),
        str(message),
        field=str(problem.get("field") or ""),
        request_id=str(problem.get("request_id") or request_id or ""),
        retry_after=float(told) if isinstance(told, int | float) else retry_after,
    )
