"""TensorRT's API as far as the runtime uses it, on the CPU: every call is recorded, every output is twice an input.

A plan is JSON: the compute capability, the activation memory, and the ports with their profile.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

__all__ = ["FakeDevice", "FakeTensorrt"]


class DataType(Enum):
    FLOAT, HALF, INT64 = range(3)


class TensorIOMode(Enum):
    INPUT, OUTPUT = range(2)


class EngineValidity(Enum):
    VALID, SUBOPTIMAL, INVALID = range(3)


class FakeDevice:
    """The host's memory as a card's."""

    stream = 77

    def __init__(self, record: list[tuple[Any, ...]]) -> None:
        self.record, self.at = record, dict[int, Tensor]()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        buffer = torch.zeros(shape, dtype=dtype)
        self.at[buffer.data_ptr()] = buffer.flatten()
        self.record.append(("empty", shape, dtype))
        return buffer

    def put(self, buffer: Tensor, value: Tensor) -> None:
        assert buffer.shape == value.shape
        assert buffer.dtype == value.dtype
        buffer.copy_(value)
        self.record.append(("put", tuple(value.shape)))

    def take(self, buffer: Tensor) -> Tensor:
        self.record.append(("take", tuple(buffer.shape)))
        return buffer.clone()

    def captured(self, launch: Callable[[], None]) -> Callable[[], None]:
        launch()
        self.record.append(("capture",))

        def replay() -> None:
            launch()
            self.record.append(("replay",))

        return replay

    def wait(self) -> None:
        self.record.append(("wait",))


class FakeTensorrt(SimpleNamespace):
    """Stands where the module does.

    Args:
        sm: of the card that this machine is said to have.
    """

    def __init__(self, sm: str = "89") -> None:
        self.sm, self.record = sm, list[tuple[Any, ...]]()
        self.device = FakeDevice(self.record)
        super().__init__(
            DataType=DataType,
            TensorIOMode=TensorIOMode,
            EngineValidity=EngineValidity,
            ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user-managed"),
            Logger=type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None}),
            Runtime=lambda log: _Runtime(self),
        )

    def names(self) -> list[str]:
        return [entry[0] for entry in self.record]

    def record_of(self, name: str) -> list[tuple[Any, ...]]:
        return [entry for entry in self.record if entry[0] == name]


class _Runtime:
    def __init__(self, trt: FakeTensorrt) -> None:
        self._trt = trt

    def get_engine_validity(self, content: bytes) -> tuple[EngineValidity, int]:
        self._trt.record.append(("validity",))
        own = json.loads(content)["sm"] == self._trt.sm
        return (EngineValidity.VALID, 0) if own else (EngineValidity.INVALID, 4)

    def deserialize_cuda_engine(self, content: bytes) -> _Engine:
        self._trt.record.append(("deserialize",))
        return _Engine(self._trt, json.loads(content))


class _Engine:
    def __init__(self, trt: FakeTensorrt, plan: dict[str, Any]) -> None:
        self._trt, self.plan = trt, plan
        self.device_memory_size_v2 = plan["memory"]
        self._ports = {port["name"]: port for port in (*plan["inputs"], *plan["outputs"])}
        self.num_io_tensors = len(self._ports)

    def get_tensor_name(self, index: int) -> str:
        return list(self._ports)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        own = any(port["name"] == name for port in self.plan["inputs"])
        return TensorIOMode.INPUT if own else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._ports[name]["dtype"]]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        assert profile == 0
        return self._ports[name]["profile"]

    def create_execution_context(self, strategy: str) -> _Context:
        self._trt.record.append(("context", strategy))
        return _Context(self._trt, self)


class _Context:
    def __init__(self, trt: FakeTensorrt, engine: _Engine) -> None:
        self._trt, self._engine = trt, engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._memory = (0, 0)

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2
        self._memory = (address, size)
        self._trt.record.append(("memory", address, size))

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._trt.record.append(("profile", profile, stream))
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        self._trt.record.append(("shape", name, tuple(shape)))
        self._shapes[name] = tuple(shape)
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[self._engine.plan["inputs"][0]["name"]]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        self._trt.record.append(("address", name, address))
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert self._memory[1], "no activation memory"
        assert stream == FakeDevice.stream
        first = self._engine.plan["inputs"][0]["name"]
        shape = self._shapes[first]
        count = int(torch.tensor(shape).prod())
        given = self._trt.device.at[self._addresses[first]][:count]
        for port in self._engine.plan["outputs"]:
            self._trt.device.at[self._addresses[port["name"]]][:count] = given * 2
        self._trt.record.append(("execute", shape))
        return True
