"""ONNX Runtime in float32: the reference that compiled engines are compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from deocc_engines.compile.export import export_onnx
from deocc_engines.components import Call

__all__ = ["OnnxCompiler"]


class OnnxCompiler:
    """Exports modules to `folder` and runs them with one thread a request."""

    name = "onnx-f32"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, call: Call) -> Callable[..., Any]:
        """Compiles one call for rows of one."""
        file = self._folder / f"{name}.onnx"
        if not file.exists():
            export_onnx(call, file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [port.name for port in session.get_inputs()]

        def run(*inputs: Tensor) -> Any:
            feed = {key: tensor.numpy() for key, tensor in zip(names, inputs, strict=True)}
            outputs = tuple(torch.from_numpy(array) for array in session.run(None, feed))
            return outputs if len(outputs) > 1 else outputs[0]

        return run
