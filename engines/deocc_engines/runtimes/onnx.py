"""ONNX Runtime on the CPU; in float32 the reference that compiled engines are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from deocc_engines.compile.export import Graphs
from deocc_engines.compile.external_data import check_external_data
from deocc_engines.components import Call

__all__ = ["OnnxCompiler", "version_here"]


def version_here() -> str:
    """The exact version of ONNX Runtime."""
    return str(onnxruntime.__version__)


class OnnxCompiler:
    """Runs graphs with one thread a request.

    Args:
        cache: a directory for exported graphs; its name holds the bundle's hash.
        compiled: graphs that were exported before, by call.
    """

    def __init__(self, cache: Path, compiled: Mapping[str, Path] = MappingProxyType({})) -> None:
        self._graphs, self._compiled = Graphs(cache), compiled

    def __call__(self, name: str, call: Call) -> Mapping[int, Callable[..., Any]]:
        """Compiles one call for rows of one."""
        file = self._compiled[name] if name in self._compiled else self._graphs.of(name, call)
        check_external_data(file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [port.name for port in session.get_inputs()]

        def run(*inputs: Tensor) -> Any:
            feed = {key: tensor.numpy() for key, tensor in zip(names, inputs, strict=True)}
            outputs = tuple(torch.from_numpy(array) for array in session.run(None, feed))
            return outputs if len(outputs) > 1 else outputs[0]

        return {1: run}
