"""What runs the networks. One contract: a compiled call stands where the module's own stood.

Every runtime takes batches and runs them row by row, each row in the same arithmetic whatever stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deocc_engines.components import Call

__all__ = ["Compiler", "Runtime", "row_by_row"]

# Compiles one call for rows of one: (inputs of one row) -> outputs of one row.
Compiler = Callable[[str, Call], Callable[..., Any]]


def row_by_row(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """A call on [b, …] inputs that runs its rows one after another."""

    def call(*inputs: Tensor) -> Any:
        if len(inputs[0]) == 1:
            return compiled(*inputs)
        rows = [compiled(*(tensor[i : i + 1] for tensor in inputs)) for i in range(len(inputs[0]))]
        if isinstance(rows[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
        return torch.cat(rows)

    return call


@dataclass(frozen=True)
class Runtime:
    """The calls of `SamRuntime` and `CompleterRuntime`, compiled.

    Attributes:
        name: e.g. "openvino-bf16".
    """

    name: str
    encode_text: Callable[..., Any]
    encode_image: Callable[..., Any]
    decode_image: Callable[..., Any]
    denoise: Callable[..., Any]
    decode_mask: Callable[..., Any]
    sam_encode: Callable[..., Any]
    sam_decode: Callable[..., Any]

    @classmethod
    def compiled(cls, name: str, calls: dict[str, Call], compiler: Compiler) -> Runtime:
        """Compiles every call."""
        return cls(name, **{key: row_by_row(compiler(key, call)) for key, call in calls.items()})

    # The names that the segmenter's contract has for them.
    @property
    def encode(self) -> Callable[..., Any]:
        return self.sam_encode

    @property
    def decode(self) -> Callable[..., Any]:
        return self.sam_decode
