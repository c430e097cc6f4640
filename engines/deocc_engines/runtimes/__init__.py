"""What runs the networks. One contract: a compiled call stands where the module's own stood.

Runtimes of the CPU take batches and give each row what it would be given alone, whatever stands beside it. Those of a
GPU run rows together; which kernels they take there depends on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deocc_engines.compile.listing import Artefact
from deocc_engines.components import Call

__all__ = ["Compiler", "Runtime", "spread"]

BATCH = 8  # rows: the largest plan that is compiled; a step must stay short enough to leave at
# Compiles one call: (inputs of so many rows) -> their outputs, by the number of rows; 1 is among them.
Compiler = Callable[[str, Call], Mapping[int, Callable[..., Any]]]


def spread(compiled: Mapping[int, Callable[..., Any]], threads: ThreadPoolExecutor | None = None) -> Callable[..., Any]:
    """A call on any number of rows: at once where so many are compiled, else in parts, in these threads if any."""
    sizes = sorted(compiled, reverse=True)

    def call(*inputs: Tensor) -> Any:
        left = len(inputs[0])
        if left in compiled:
            return compiled[left](*inputs)
        lengths = list[int]()
        while left:
            lengths.append(next(size for size in sizes if size <= left))
            left -= lengths[-1]
        apart = zip(*(torch.split(tensor, lengths) for tensor in inputs), strict=True)
        parts = list((threads.map if threads else map)(lambda part: compiled[len(part[0])](*part), apart))
        if isinstance(parts[0], tuple):
            return tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))
        return torch.cat(parts)

    return call


@dataclass(frozen=True)
class Runtime:
    """The calls of `SamRuntime` and `CompleterRuntime`, compiled.

    Attributes:
        name: e.g. "openvino-bf16".
        version: exactly of what; where it matters, of which card.
        artefacts: of the bundle's listing that it is made of; calls that none is for were converted here.
        sizes: numbers of rows that are worth denoising in one call, ascending.
        by_row: a row is given the same bytes whatever stands beside it; several calls may then run at once.
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
    refine: Callable[..., Any] | None = None  # where the engine has a refiner
    refine_mask: Callable[..., Any] | None = None  # and one of masks
    artefacts: tuple[Artefact, ...] = ()
    sizes: tuple[int, ...] = (1,)
    by_row: bool = True

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
        """Compiles every call for a CPU.

        Args:
            streams: rows that may run at once.
        """
        threads = ThreadPoolExecutor(streams, "rows") if streams > 1 else None
        compiled = {key: compiler(key, call) for key, call in calls.items()}
        own: dict[str, Any] = {key: spread(by_size, threads) for key, by_size in compiled.items()}
        sizes = next((tuple(sorted(compiled[key])) for key, call in calls.items() if call.batched), (1,))
        return cls(name, version, **own, artefacts=artefacts, sizes=sizes)

    @classmethod
    def batched(
        cls, name: str, calls: dict[str, Callable[..., Any]], version: str, artefacts: tuple[Artefact, ...] = ()
    ) -> Runtime:
        """Of calls that take any number of rows themselves."""
        own: dict[str, Any] = calls
        return cls(name, version, **own, artefacts=artefacts, sizes=tuple(range(1, BATCH + 1)), by_row=False)

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
