"""What runs the networks. One contract: a compiled call stands where the module's own stood.

Runtimes of the CPU take batches and run each row by itself, in the same arithmetic whatever stands beside it.
Those of a GPU run rows together; which kernels they take there depends on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deocc_engines.compile.listing import Artefact
from deocc_engines.components import Call

__all__ = ["Compiler", "Runtime", "row_by_row"]

BATCH = 8  # rows: the largest plan that is compiled; a step must stay short enough to leave at
# Compiles one call for rows of one: (inputs of one row) -> outputs of one row.
Compiler = Callable[[str, Call], Callable[..., Any]]


def row_by_row(compiled: Callable[..., Any], threads: ThreadPoolExecutor | None = None) -> Callable[..., Any]:
    """A call on [b, …] inputs that runs its rows one by one, in these threads if any are given."""

    def call(*inputs: Tensor) -> Any:
        if len(inputs[0]) == 1:
            return compiled(*inputs)
        apart = zip(*(torch.split(tensor, 1) for tensor in inputs), strict=True)
        rows = list((threads.map if threads else map)(lambda row: compiled(*row), apart))
        if isinstance(rows[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
        return torch.cat(rows)

    return call


@dataclass(frozen=True)
class Runtime:
    """The calls of `SamRuntime` and `CompleterRuntime`, compiled.

    Attributes:
        name: e.g. "openvino-bf16".
        version: exactly of what; where it matters, of which card.
        artefacts: of the bundle's listing that it is made of; calls that none is for were converted here.
        max_rows: worth denoising in one call; 1 where a call takes each row by itself.
    """

    name: str
    version: str
    encode_text: Callable[..., Any]
    encode_image: Callable[..., Any]
    decode_image: Callable[..., Any]
    denoise: Callable[..., Any]
    decode_mask: Callable[..., Any]
    sam_encode: Callable[..., Any]
    sam_decode: Callable[..., Any]
    artefacts: tuple[Artefact, ...] = ()
    max_rows: int = 1

    @classmethod
    def compiled(
        cls,
        name: str,
        calls: dict[str, Call],
        compiler: Compiler,
        version: str = "",
        artefacts: tuple[Artefact, ...] = (),
        streams: int = 1,
    ) -> Runtime:
        """Compiles every call for rows of one.

        Args:
            streams: rows that may run at once.
        """
        threads = ThreadPoolExecutor(streams, "rows") if streams > 1 else None
        compiled: dict[str, Any] = {key: row_by_row(compiler(key, call), threads) for key, call in calls.items()}
        return cls(name, version, **compiled, artefacts=artefacts)

    @classmethod
    def batched(
        cls, name: str, calls: dict[str, Callable[..., Any]], version: str, artefacts: tuple[Artefact, ...] = ()
    ) -> Runtime:
        """Of calls that take any number of rows themselves."""
        own: dict[str, Any] = calls
        return cls(name, version, **own, artefacts=artefacts, max_rows=BATCH)

    @property
    def identity(self) -> str:
        """Under which parity is recorded: other versions compute other numbers."""
        return f"{self.name}@{self.version}"

    # The names that the segmenter's contract has for them.
    @property
    def encode(self) -> Callable[..., Any]:
        return self.sam_encode

    @property
    def decode(self) -> Callable[..., Any]:
        return self.sam_decode
