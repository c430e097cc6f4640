"""Torch to ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from deocc_engines.compile.folder import made_once
from deocc_engines.components import Call
from deocc_engines.folders import cache_folder, converted_name

__all__ = ["MAX_ROWS", "MAX_TOKENS", "OPSET", "Graphs", "dynamic_shape", "export_onnx", "graphs_folder"]

OPSET = 21  # the last one that keeps GroupNormalization and has no Attention operator, which TensorRT-RTX refuses
MAX_ROWS, MAX_TOKENS = 64, 256


class Graphs:
    """Float32 graphs, exported when first asked for and kept in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, name: str, call: Call) -> Path:
        """The file of one call."""
        folder = self._folder / name
        with made_once(folder) as own:
            if own is not None:
                export_onnx(call, own / "model.onnx")
        return folder / "model.onnx"


def graphs_folder(engine_id: str) -> Path:
    """Where the graphs of one engine lie in the user's cache."""
    return cache_folder() / "onnx" / f"{converted_name(engine_id)}-torch{torch.__version__}-opset{OPSET}-rows"


def export_onnx(call: Call, file: Path) -> None:
    """Exports one call for any number of rows, in float32; weights of large networks go to `file`.data."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = torch.export.Dim("rows", min=1, max=MAX_ROWS)
    tokens = torch.export.Dim("tokens", min=1, max=MAX_TOKENS)
    shapes = tuple({0: rows, 1: tokens} if i in call.dynamic else {0: rows} for i in range(len(call.example)))
    # Two rows: of one the exporter would conclude that there is never more than one.
    example = tuple(torch.cat([row, row]) for row in call.example)
    with _quiet():
        program = torch.onnx.export(
            call.module,
            example,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=(shapes,) if call.bound else shapes,
            verbose=False,
        )
    assert program is not None
    program.save(str(file))


def dynamic_shape(call: Call, index: int, rows: int, tokens: int) -> tuple[int, ...]:
    """The shape of one input for so many rows and tokens."""
    shape = tuple(call.example[index].shape)
    return (rows, tokens, *shape[2:]) if index in call.dynamic else (rows, *shape[1:])


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter tells of every operator of packages that are not installed, and warns of its own internals.
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
