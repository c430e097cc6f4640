"""What needs the engines on this machine, found by entry point: the client itself imports none of it.

The distribution's extra ``serve`` provides the group ``deocc.local``:

- ``transport``: ``(engine: str | None, timeout: float | None) -> AsyncTransport``, the service's core without a server;
- ``serve``: ``(**settings) -> None``, runs a host until it is told to stop;
- ``engines``: ``() -> list[dict]``, the bundles on this machine;
- ``verify``: ``(engine: str | None) -> dict``, checks one bundle and raises InvalidBundle or NotFound;
- ``pull``: ``(name, *, revisions, accept, say, **options) -> dict``, a bundle of published files from the hub;
- ``convert``: ``(name, paths, *, accept, say, **options) -> dict``, the same of local files;
- ``compile``: ``(engine, *, target, sms, dtype, batches, calls, into, say) -> dict``, builds one for a target;
- ``parity``: ``(engine, *, runtime, image, say) -> dict``, what would be served against the reference;
- ``bench``: ``(engine, *, runtime, rounds, batches, say) -> dict``, how fast it is on this machine;
- ``diagnose``: ``() -> list[dict]``, what this machine can run.

The extra ``eval`` adds what `deocc.cli.evaluate` calls: ``evaluate``, ``compare`` and ``evaluate_priors``.

All of them raise `deocc.errors`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from deocc.errors import NotInstalled

__all__ = ["provided"]

GROUP = "deocc.local"


def provided(name: str, extra: str = "serve") -> Any:
    """The object behind one entry point of the group.

    Args:
        extra: of the distribution, that brings it.

    Raises:
        NotInstalled: the extra, or a part of it, is missing.
    """
    for entry in entry_points(group=GROUP, name=name):
        try:
            return entry.load()
        except ImportError as error:
            missing = error.name or str(error)
            raise NotInstalled(f"{missing} is missing; pip install 'deocc[{extra}]' brings it") from error
    raise NotInstalled("the engines are not installed here; pip install 'deocc[serve]', or name a service")
