"""Where an ONNX file's weights lie: beside it, or the file is not read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from deocc_engines.errors import InvalidBundle

__all__ = ["check_external_data"]


def check_external_data(file: Path) -> tuple[str, ...]:
    """Names of the files beside `file` that hold its weights.

    Raises:
        InvalidBundle: it is not an ONNX file, or its weights are said to lie elsewhere.
    """
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's own trees
        raise InvalidBundle(f"{file.name} is not an ONNX file") from error
    found = set()
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        beside = file.parent / location
        if location in ("", ".", "..") or Path(location).name != location or beside.is_symlink():
            raise InvalidBundle(f"{file.name}: the weights of {tensor.name} lie outside of its folder: {location!r}")
        if not beside.is_file():
            raise InvalidBundle(f"{file.name}: {location} is missing")
        found.add(location)
    return tuple(sorted(found))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors_of(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _tensors_of_node(node)


def _tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors_of(graph)
