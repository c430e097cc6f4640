"""Parts of the package that need not be installed, and are imported where they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deocc_engines.errors import Unavailable

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of what comes with one of the package's extras.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed; pip install 'deocc[{name}]' brings it") from error
