"""What needs the engines on this machine, found by entry point: the client itself imports none of it.

The distribution's extra ``serve`` provides the group ``deocc.local``:

- ``transport``: ``(engine: str | None, timeout: float | None) -> AsyncTransport``, the service's core without a server;
- ``serve``: ``(**settings) -> None``, runs a host until it is told to stop;
- ``engines``: ``() -> list[dict]``, the bundles on this machine;
- ``verify``: ``(engine: str | None) -> dict``, checks one bundle and raises InvalidBundle or NotFound;
- ``diagnose``: ``() -> list[dict]``, what this machine can run.

All of them raise `deocc.errors`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from deocc.errors import NotInstalled

__all__ = ["provided"]

GROUP = "deocc.local"


def provided(name: str) -> Any:
    """The object behind one entry point of the group.

    Raises:
        NotInstalled: the extra, or a part of it, is missing.
    """
    for entry in entry_points(group=GROUP, name=name):
        try:
            return entry.load()
        except ImportError as error:
            missing = error.name or str(error)
            raise NotInstalled(f"{missing} is missing; pip install 'deocc[serve]' brings the engines") from error
    raise NotInstalled("the engines are not installed here; pip install 'deocc[serve]', or name a service")
