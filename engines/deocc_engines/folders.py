"""Where things lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "engines_folder"]


def cache_folder() -> Path:
    """For what can be made again: DEOCC_CACHE, or deocc in the user's cache directory."""
    base = os.environ.get("DEOCC_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "deocc"


def engines_folder() -> Path:
    """Bundles that were pulled or converted, each in a folder of its name."""
    return cache_folder() / "engines"
