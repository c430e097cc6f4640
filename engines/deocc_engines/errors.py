"""The one error tree of deocc. Every error that a caller can meet is one of these.

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
    ├── Unauthenticated         no key, or an unknown one
    ├── DeadlineExceeded        the time that the caller gave is over
    ├── Cancelled               the caller went away
    ├── Unavailable             a model is not ready, or was lost
    ├── InvalidBundle           a bundle is incomplete, altered, or not for this machine
    └── EngineFailure           the engine failed: our bug, never the caller's

The engines know neither gRPC nor HTTP; the service maps this tree to both in one place.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "DeadlineExceeded",
    "DeadlineUnmeetable",
    "DeoccError",
    "EngineFailure",
    "InvalidBundle",
    "InvalidImage",
    "InvalidInput",
    "InvalidOption",
    "InvalidPrompt",
    "NotFound",
    "Overloaded",
    "RateLimited",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedMedia",
]


class DeoccError(Exception):
    """Base of all errors.

    Args:
        message: one sentence for a person, without paths or secrets.
        field: the request field at fault in wire names, e.g. ``"prompt.points[2].x"``.
    """

    reason = "ERROR"  # a stable code for programs

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not survive pickling between replicas by themselves.
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

    Args:
        retry_after: seconds after which to try again.
    """

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after: float = 1.0, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after = retry_after


class DeadlineUnmeetable(Overloaded):
    """The work would not end in the time that the caller gave; it was not begun."""

    reason = "DEADLINE_UNMEETABLE"


class RateLimited(Overloaded):
    """Too many requests with this key."""

    reason = "RATE_LIMITED"


class Unauthenticated(DeoccError):
    """No key, or an unknown one."""

    reason = "UNAUTHENTICATED"


class DeadlineExceeded(DeoccError):
    """The time that the caller gave is over."""

    reason = "DEADLINE_EXCEEDED"


class Cancelled(DeoccError):
    """The caller went away, and the work was stopped."""

    reason = "CANCELLED"


class Unavailable(DeoccError):
    """A model is not ready, or was lost."""

    reason = "UNAVAILABLE"


class InvalidBundle(DeoccError):
    """A bundle is incomplete, altered, or not for this machine."""

    reason = "INVALID_BUNDLE"


class EngineFailure(DeoccError):
    """The engine failed: our bug, never the caller's."""

    reason = "ENGINE_FAILURE"
