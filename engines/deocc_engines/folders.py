"""Where things lie on this machine."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

__all__ = ["cache_folder", "converted_name", "engines_folder"]


def cache_folder() -> Path:
    """For what can be made again: DEOCC_CACHE, or deocc in the user's cache directory."""
    base = os.environ.get("DEOCC_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "deocc"


def engines_folder() -> Path:
    """Bundles that were pulled or converted, each in a folder of its name."""
    return cache_folder() / "engines"


def converted_name(engine_id: str) -> str:
    """Under which the cache keeps what became of an engine's networks: other code makes something else of them."""
    return f"{engine_id}-code{_code()}"


@cache
def _code() -> str:
    own = Path(__file__).parent
    digest = hashlib.sha256()
    for file in (own / "components.py", *sorted((own / "networks").glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]
