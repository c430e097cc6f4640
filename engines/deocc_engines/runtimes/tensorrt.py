"""Plans of TensorRT and TensorRT-RTX on a GPU.

One set of engines serves a process: all of them share one activation buffer, sized to the largest, one stream and one
lock, because a buffer serves one run at a time. Every static profile is a CUDA graph, captured when the set is loaded:
never in the first request. Tensors come from the host and go back there, float32 whatever the plan computes in.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deocc_engines.compile.listing import Artefact
from deocc_engines.components import Call
from deocc_engines.errors import EngineFailure, InvalidBundle
from deocc_engines.runtimes.card import Card
from deocc_engines.runtimes.device import CudaDevice, Device
from deocc_engines.runtimes.profiles import split

__all__ = ["EngineSet"]

log = logging.getLogger(__name__)

ALIGNMENT = 256  # bytes, of an activation buffer


@dataclass(frozen=True)
class Port:
    """One input or output of a plan, with its shape at the largest profile."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Loaded:
    """One plan, ready to run.

    Attributes:
        rows: of its static batch.
        launch: puts one run into the stream.
        buffers: by port, views of the buffers that all plans of the call share.
        dynamic: whether shapes other than the batch vary, so that there is no graph.
    """

    rows: int
    context: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dynamic: bool
    buffers: dict[str, Tensor]
    launch: Callable[[], None]


class EngineSet:
    """All plans of one bundle for this card.

    Args:
        trt: the module `tensorrt_rtx` or `tensorrt`.
        plans: by call, smallest batch first.

    Raises:
        InvalidBundle: a plan was altered, or is not what the listing says.
    """

    def __init__(
        self,
        trt: Any,
        device: Device,
        folder: Path,
        calls: Mapping[str, Call],
        plans: Mapping[str, Sequence[Artefact]],
    ) -> None:
        self._trt, self._device, self._lock = trt, device, threading.Lock()
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        engines = {a.key: self._deserialised(folder, a) for artefacts in plans.values() for a in artefacts}
        self._engines = [engine for engine, _ in engines.values()]  # they must outlive their contexts
        size = max(int(engine.device_memory_size_v2) for engine in self._engines)
        self._activations = device.empty((max(size, ALIGNMENT),), torch.uint8)
        self._loaded: dict[str, list[Loaded]] = {}
        for name, artefacts in plans.items():
            own = [self._prepared(a, *engines[a.key], calls[name]) for a in artefacts]
            self._share_buffers(own)
            for loaded in own:
                self._ready(loaded)
            self._loaded[name] = own
        device.wait()

    @classmethod
    def open(
        cls, card: Card, folder: Path, calls: Mapping[str, Call], plans: Mapping[str, Sequence[Artefact]]
    ) -> EngineSet:
        """On this machine's card."""
        return cls(importlib.import_module(card.module), CudaDevice(), folder, calls, plans)

    def batches(self, name: str) -> tuple[int, ...]:
        """Rows of each profile of a call."""
        return tuple(loaded.rows for loaded in self._loaded[name])

    def call(self, name: str) -> Callable[..., Any]:
        """One call for any number of rows."""
        by_rows = {loaded.rows: loaded for loaded in self._loaded[name]}

        def run(*inputs: Tensor) -> Any:
            parts, start = [], 0
            for rows, batch in split(len(inputs[0]), tuple(by_rows)):
                own = tuple(tensor[start : start + rows] for tensor in inputs)
                parts.append(self._run(name, by_rows[batch], own))
                start += rows
            outputs = tuple(torch.cat(part) if len(part) > 1 else part[0] for part in zip(*parts, strict=True))
            return outputs if len(outputs) > 1 else outputs[0]

        return run

    def _run(self, name: str, plan: Loaded, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        for port, tensor in zip(plan.inputs, inputs, strict=True):
            _check_fits(name, port, tensor, plan.dynamic)
        rows = len(inputs[0])
        with self._lock:
            for port, tensor in zip(plan.inputs, inputs, strict=True):
                shape = (plan.rows, *tensor.shape[1:])
                self._device.put(_view(plan.buffers[port.name], shape), _padded(tensor, plan.rows))
                if plan.dynamic and not plan.context.set_input_shape(port.name, shape):
                    raise EngineFailure(f"{name}: {port.name} of shape {list(shape)} is outside of the plan's profile")
            plan.launch()
            shapes = {
                port.name: tuple(plan.context.get_tensor_shape(port.name)) if plan.dynamic else port.shape
                for port in plan.outputs
            }
            return [self._device.take(_view(plan.buffers[p.name], shapes[p.name])[:rows]) for p in plan.outputs]

    def _deserialised(self, folder: Path, artefact: Artefact) -> tuple[Any, dict[str, Any]]:
        assert artefact.plan is not None
        content = (folder / artefact.plan).read_bytes()
        # A plan is native code: it is looked at before the runtime is.
        if hashlib.sha256(content).hexdigest() != artefact.files[artefact.plan]["sha256"]:
            raise InvalidBundle(f"{artefact.plan} was altered: its SHA-256 is not the listing's")
        said = artefact.provenance(folder)
        self._check_validity(artefact, content)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise InvalidBundle(f"{artefact.plan} is not for this card, or not for {artefact.runtime}")
        self._check_ports(artefact, engine, said)
        return engine, said

    def _check_validity(self, artefact: Artefact, content: bytes) -> None:
        if not hasattr(self._runtime, "get_engine_validity"):  # TensorRT-RTX has it
            return
        validity, diagnosis = self._runtime.get_engine_validity(content)
        if validity == self._trt.EngineValidity.INVALID:
            raise InvalidBundle(f"{artefact.plan} is not for this card or driver (diagnosis {diagnosis})")
        if validity != self._trt.EngineValidity.VALID:
            log.warning("%s runs here, but not as fast as one compiled for this card", artefact.plan)

    def _check_ports(self, artefact: Artefact, engine: Any, said: dict[str, Any]) -> None:
        inputs, outputs = said["inputs"], said["outputs"]
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        if sorted(names) != sorted([*inputs, *outputs]):
            raise InvalidBundle(f"{artefact.plan} has the tensors {names}, not {[*inputs, *outputs]}")
        for name in names:
            mode = self._trt.TensorIOMode.INPUT if name in inputs else self._trt.TensorIOMode.OUTPUT
            if engine.get_tensor_mode(name) != mode or engine.get_tensor_dtype(name) not in self._dtypes():
                raise InvalidBundle(f"{artefact.plan}: {name} is {engine.get_tensor_dtype(name)}, not float32 or int64")

    def _dtypes(self) -> dict[Any, torch.dtype]:
        return {self._trt.DataType.FLOAT: torch.float32, self._trt.DataType.INT64: torch.int64}

    def _prepared(self, artefact: Artefact, engine: Any, said: dict[str, Any], call: Call) -> Loaded:
        """A context on the shared activations, its shapes set; buffers follow when all of the call are known."""
        context = engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise EngineFailure(f"{artefact.plan}: the runtime gave no execution context")
        context.set_device_memory(self._activations.data_ptr(), self._activations.nbytes)
        context.set_optimization_profile_async(0, self._device.stream)
        inputs, dynamic = [], False
        for name, example in zip(said["inputs"], call.example, strict=True):
            low, _, high = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0))
            if high[0] != artefact.batch[2] or len(high) != example.dim():
                raise InvalidBundle(f"{artefact.plan}: {name} has the profile {list(high)}")
            dynamic = dynamic or low != high
            dtype = self._dtypes()[engine.get_tensor_dtype(name)]
            if dtype != example.dtype:
                raise InvalidBundle(f"{artefact.plan}: {name} is {dtype}, the network takes {example.dtype}")
            inputs.append(Port(name, high, dtype))
            context.set_input_shape(name, high)
        outputs = tuple(
            Port(name, tuple(context.get_tensor_shape(name)), self._dtypes()[engine.get_tensor_dtype(name)])
            for name in said["outputs"]
        )
        stream = self._device.stream

        def launch() -> None:
            if not context.execute_async_v3(stream):
                raise EngineFailure(f"{artefact.call} did not run on the GPU")

        return Loaded(artefact.batch[2], context, tuple(inputs), outputs, dynamic, {}, launch)

    def _share_buffers(self, plans: list[Loaded]) -> None:
        """One buffer a tensor for all profiles of a call: they never run at once."""
        largest = max(plans, key=lambda plan: plan.rows)
        whole = {port.name: self._device.empty(port.shape, port.dtype) for port in (*largest.inputs, *largest.outputs)}
        for plan in plans:
            for port in (*plan.inputs, *plan.outputs):
                plan.buffers[port.name] = _view(whole[port.name], port.shape)
                plan.context.set_tensor_address(port.name, plan.buffers[port.name].data_ptr())

    def _ready(self, plan: Loaded) -> None:
        """Captures the graph of a static profile; runs a dynamic one once."""
        if plan.dynamic:
            plan.launch()
        elif hasattr(plan.context, "is_stream_capturable") and not plan.context.is_stream_capturable(
            self._device.stream
        ):
            log.warning("a plan of %d rows cannot be captured as a CUDA graph; it is launched each time", plan.rows)
            plan.launch()
        else:
            plan.launch = self._device.captured(plan.launch)


def _view(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The front of a buffer in another shape."""
    count = 1
    for side in shape:
        count *= side
    return buffer.flatten()[:count].view(shape)


def _padded(tensor: Tensor, rows: int) -> Tensor:
    """With the last row again until there are so many: any numbers do that the network is made for."""
    missing = rows - len(tensor)
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor


def _check_fits(name: str, port: Port, tensor: Tensor, dynamic: bool) -> None:
    """The runtimes give wrong numbers for shapes outside of a profile instead of refusing them."""
    wanted = port.shape[1:]
    own = tuple(tensor.shape[1:])
    fits = len(own) == len(wanted) and all(a <= b for a, b in zip(own, wanted, strict=True))
    if tensor.dtype != port.dtype or not fits or (own != wanted and not dynamic):
        raise EngineFailure(f"{name}: {port.name} is {tensor.dtype} {own}, the plan takes {port.dtype} {wanted}")
