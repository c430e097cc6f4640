"""A CUDA device as the TensorRT runtime needs it: buffers, one stream, captured graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["CudaDevice", "Device"]


@runtime_checkable
class Device(Protocol):
    """The seam at which tests put a recorder."""

    @property
    def stream(self) -> int:
        """The handle of the one stream that everything runs on."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor: ...

    def put(self, buffer: Tensor, value: Tensor) -> None:
        """Copies from the host, in the stream."""
        ...

    def take(self, buffer: Tensor) -> Tensor:
        """Copies to the host, and waits for it."""
        ...

    def captured(self, launch: Callable[[], None]) -> Callable[[], None]:
        """`launch` as a CUDA graph; addresses and shapes stay what they are now."""
        ...

    def wait(self) -> None: ...


class CudaDevice:
    """The current card."""

    def __init__(self) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device())
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @property
    def stream(self) -> int:
        return int(self._stream.cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        # Zeroed: rows that only pad a batch must not hold what makes a kernel slow or an output NaN.
        with torch.cuda.stream(self._stream):
            return torch.zeros(shape, dtype=dtype, device=self._device)

    def put(self, buffer: Tensor, value: Tensor) -> None:
        with torch.cuda.stream(self._stream):
            buffer.copy_(value, non_blocking=True)

    def take(self, buffer: Tensor) -> Tensor:
        with torch.cuda.stream(self._stream):
            return buffer.cpu()

    def captured(self, launch: Callable[[], None]) -> Callable[[], None]:
        launch()  # what is set up lazily must be there before a capture
        self.wait()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            launch()

        def replay() -> None:
            with torch.cuda.stream(self._stream):
                graph.replay()

        return replay

    def wait(self) -> None:
        self._stream.synchronize()
