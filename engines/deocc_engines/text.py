"""Words to token ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int64
from tokenizers import Tokenizer as Backend

__all__ = ["Tokenizer"]


class Tokenizer:
    """A bundle's tokenizer.json at a fixed length: longer prompts are cut, shorter ones padded."""

    def __init__(self, backend: Backend, length: int) -> None:
        padding = backend.padding or {}
        backend.enable_truncation(length)
        backend.enable_padding(
            length=length, pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]")
        )
        self._backend = backend

    @classmethod
    def open(cls, path: Path, length: int) -> Tokenizer:
        """Reads tokenizer.json."""
        return cls(Backend.from_file(str(path)), length)

    def __call__(self, text: str) -> Int64[np.ndarray, " n"]:
        """Ids of one prompt; the empty prompt is the null condition."""
        return np.array(self._backend.encode(text).ids, np.int64)
