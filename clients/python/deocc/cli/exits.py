"""What the command's exit status means."""

from __future__ import annotations

from enum import IntEnum

from deocc.errors import (
    Cancelled,
    DeadlineExceeded,
    DeoccError,
    InvalidInput,
    NotFound,
    NotInstalled,
    Overloaded,
    ServerError,
    Unauthenticated,
    Unavailable,
)

__all__ = ["HELP", "Exit", "exit_of"]


class Exit(IntEnum):
    """Stable: scripts rely on it."""

    OK = 0
    OTHER = 1
    USAGE = 2
    INVALID_INPUT = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    DEADLINE = 6
    ENGINE = 7
    INTERRUPTED = 130


HELP = """**Exit status**

* 0: done
* 1: a file cannot be read or written, or `doctor` found a fault
* 2: the command line is wrong
* 3: the image, the prompt, an option or the API key is wrong
* 4: no such file, uploaded image or engine
* 5: the service is overloaded, not ready, or cannot be reached
* 6: out of time
* 7: the engine failed, is damaged, or is not installed
* 130: interrupted
"""

_EXITS: tuple[tuple[type[DeoccError], Exit], ...] = (
    (InvalidInput, Exit.INVALID_INPUT),
    (Unauthenticated, Exit.INVALID_INPUT),
    (NotFound, Exit.NOT_FOUND),
    (Overloaded, Exit.UNAVAILABLE),
    (Unavailable, Exit.UNAVAILABLE),
    (DeadlineExceeded, Exit.DEADLINE),
    (Cancelled, Exit.INTERRUPTED),
    (NotInstalled, Exit.ENGINE),
    (ServerError, Exit.ENGINE),
)


def exit_of(error: DeoccError | OSError) -> Exit:
    """The status for an error that reached the top."""
    if isinstance(error, FileNotFoundError):
        return Exit.NOT_FOUND
    return next((code for kind, code in _EXITS if isinstance(error, kind)), Exit.OTHER)
