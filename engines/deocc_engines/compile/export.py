"""Torch to ONNX."""

from __future__ import annotations

from pathlib import Path

import torch

from deocc_engines.components import Call

__all__ = ["OPSET", "export_onnx"]

OPSET = 21  # the last one that keeps GroupNormalization and has no Attention operator, which TensorRT-RTX refuses


def export_onnx(call: Call, file: Path) -> None:
    """Exports one call, weights inside the file, one row a batch."""
    file.parent.mkdir(parents=True, exist_ok=True)
    count = torch.export.Dim("tokens", min=1, max=256)
    shapes = tuple({1: count} if i in call.dynamic else {} for i in range(len(call.example)))
    program = torch.onnx.export(
        call.module,
        call.example,
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes=(shapes,) if call.dynamic else None,
        verbose=False,
    )
    assert program is not None
    program.save(str(file))
