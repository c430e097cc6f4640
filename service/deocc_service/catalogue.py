"""The bundles on this machine: entry points of the client's group ``deocc.local``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deocc_engines import bundle
from deocc_engines.errors import DeoccError
from deocc_service.inprocess import client_error

__all__ = ["convert", "engines", "pull", "verify"]


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


def pull(
    name: str, *, revisions: Sequence[str], accept: Callable[[str], bool], say: Callable[[str], None], **options: Any
) -> dict[str, object]:
    """Fetches published files and makes a bundle of them.

    Args:
        accept: is shown the licences and says whether the user accepts them.
        say: told what is being done.
        options: fields of `ConvertOptions`.

    Raises:
        InvalidOption, NotFound, Unavailable, InvalidBundle.
    """
    from deocc_engines.convert import assembly, recipe  # with torch, seconds to import

    try:
        chosen = recipe.ConvertOptions(**options)
        return _shown(assembly.pull(name, chosen, revisions=revisions, accept=accept, say=say).info())
    except DeoccError as error:
        raise client_error(error) from error


def convert(
    name: str, paths: Sequence[Path], *, accept: Callable[[str], bool], say: Callable[[str], None], **options: Any
) -> dict[str, object]:
    """The same of local files.

    Raises:
        InvalidOption, NotFound, InvalidBundle.
    """
    from deocc_engines.convert import assembly, recipe  # with torch, seconds to import

    try:
        chosen = recipe.ConvertOptions(**options)
        return _shown(assembly.convert(name, paths, chosen, accept=accept, say=say).info())
    except DeoccError as error:
        raise client_error(error) from error


def _shown(info: bundle.EngineInfo) -> dict[str, object]:
    from deocc_engines.runtimes.selection import expected_here  # with torch, seconds to import

    return asdict(info) | {"is_default": info.name == bundle.DEFAULT, "runtime": expected_here()}
