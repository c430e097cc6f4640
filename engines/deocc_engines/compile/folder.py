"""Folders that are there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["made_once"]


@contextmanager
def made_once(folder: Path) -> Iterator[Path | None]:
    """A folder to fill, renamed to `folder` when whole; None if `folder` is there already.

    Several processes may make the same at once: the first one's stays.
    """
    if folder.is_dir():
        yield None
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield own
        try:
            own.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
