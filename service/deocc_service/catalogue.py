"""The bundles on this machine: the entry points ``engines`` and ``verify`` of the client's group ``deocc.local``."""

from __future__ import annotations

from dataclasses import asdict

from deocc_engines import bundle
from deocc_engines.errors import DeoccError
from deocc_service.inprocess import client_error

__all__ = ["engines", "verify"]


def engines() -> list[dict[str, object]]:
    """One entry an engine, with the fields of `EngineInfo`, the default one first.

    Raises:
        InvalidBundle: a manifest cannot be read.
    """
    try:
        found = [_shown(info) for info in bundle.available()]
    except DeoccError as error:
        raise client_error(error) from error
    return sorted(found, key=lambda engine: not engine["is_default"])


def verify(engine: str | None) -> dict[str, object]:
    """Checks every hash of one bundle.

    Args:
        engine: its name or path; None: the default one.

    Raises:
        NotFound, InvalidBundle.
    """
    try:
        return _shown(bundle.verify(engine))
    except DeoccError as error:
        raise client_error(error) from error


def _shown(info: bundle.EngineInfo) -> dict[str, object]:
    from deocc_engines.runtimes.openvino import runtime_here  # with torch, seconds to import

    return asdict(info) | {"is_default": info.name == bundle.DEFAULT, "runtime": runtime_here()}
