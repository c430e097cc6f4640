"""Words for people, on standard error: standard output belongs to pictures and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import typer
from rich.console import Console

from deocc.errors import DeoccError

__all__ = ["console", "print_json", "report", "report_retry"]


def console(*, quiet: bool = False) -> Console:
    """Standard error as it is now, which tests and callers may have redirected."""
    return Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)


def report(error: DeoccError | OSError) -> None:
    """One line, and where to look further."""
    words = error.message if isinstance(error, DeoccError) else _words(error)
    details = []
    if isinstance(error, DeoccError):
        if error.field:
            details.append(f"field {error.field}")
        if error.request_id:
            details.append(f"request {error.request_id}")
    tail = f" ({', '.join(details)})" if details else ""
    console().print(f"deocc: {words}{tail}", style="red", markup=False)


def report_retry(attempt: int, seconds: float, cause: Exception) -> None:
    console().print(f"deocc: {cause}; trying again in {seconds:.1f} s", style="yellow", markup=False)


def print_json(value: Mapping[str, object] | Sequence[object]) -> None:
    """One document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _words(error: OSError) -> str:
    if error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error)
