"""A float32 graph in a narrower type, all but what would suffer: strongly typed runtimes compute as the graph says.

Kept in float32: normalisations and what they are made of, softmax with the product of queries and keys before it
(SD2's overflows in float16), and sines and cosines with their arguments (a timestep of 999 has no fraction in
float16). Inputs and outputs stay float32.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from deocc_engines.compile.listing import Dtype
from deocc_engines.errors import InvalidBundle

__all__ = ["DTYPES", "KEPT", "narrow"]

DTYPES = {"f32": ir.DataType.FLOAT, "f16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
NUMPY = {ir.DataType.FLOAT: np.float32, ir.DataType.FLOAT16: np.float16, ir.DataType.BFLOAT16: ml_dtypes.bfloat16}
# Sub, Div, Pow, Sqrt and the means are what a LayerNorm over channels is exported as.
KEPT = frozenset(
    {
        *("LayerNormalization", "GroupNormalization", "InstanceNormalization", "Softmax", "Sin", "Cos", "Exp", "Log"),
        *("ReduceMean", "ReduceSum", "Pow", "Sqrt", "Reciprocal", "Sub", "Div"),
    }
)
SENSITIVE = ("Softmax", "Sin", "Cos")  # with all that leads to them, back to the last of
PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum", "Conv"})
# These say themselves which type comes out, or want float32 for what is no data (the scales of a Resize).
UNTYPED = frozenset({"Cast", "Constant", "ConstantOfShape", "Shape"})
CONTROL = {"Resize": (1, 2)}


def narrow(model: ir.Model, dtype: Dtype, kept: frozenset[str] = KEPT) -> None:
    """Rewrites the graph in place.

    Args:
        kept: operators that stay in float32; an empty set casts everything.

    Raises:
        InvalidBundle: a weight is too large for the type; named.
    """
    if dtype != "f32":
        _Narrowing(model.graph, DTYPES[dtype], kept).run()


class _Narrowing:
    def __init__(self, graph: ir.Graph, dtype: ir.DataType, kept: frozenset[str]) -> None:
        self._graph, self._dtype, self._kept = graph, dtype, kept
        self._cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        safe = self._safe()
        # Types as exported: what is float32 now is data; integers and booleans are not touched.
        data = {v for node in self._graph for v in (*node.inputs, *node.outputs) if _is_data(v)}
        for node in list(self._graph):
            if node.op_type in UNTYPED:
                continue
            wanted = ir.DataType.FLOAT if node in safe else self._dtype
            for index, value in enumerate(node.inputs):
                if value in data and index not in CONTROL.get(node.op_type, ()):
                    assert value is not None
                    node.replace_input_with(index, self._as(value, wanted, node))
            for value in node.outputs:
                if value in data:
                    value.dtype = wanted
        for index, value in enumerate(self._graph.outputs):
            if value.dtype == self._dtype:
                self._graph.outputs[index] = self._widened(value)
        for name, weight in list(self._graph.initializers.items()):
            if not weight.uses() and not weight.is_graph_output():
                del self._graph.initializers[name]

    def _safe(self) -> set[ir.Node]:
        safe = {node for node in self._graph if node.op_type in self._kept}
        found = [node for node in safe if node.op_type in SENSITIVE]
        while found:
            for before in found.pop().predecessors():
                if before not in safe:
                    safe.add(before)
                    if before.op_type not in PRODUCTS:
                        found.append(before)
        return safe

    def _as(self, value: ir.Value, wanted: ir.DataType, user: ir.Node) -> ir.Value:
        if value.dtype == wanted:
            return value
        if (value, wanted) not in self._cast:
            weight = value.is_initializer()
            self._cast[value, wanted] = self._weight(value, wanted) if weight else self._node(value, wanted, user)
        return self._cast[value, wanted]

    def _weight(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        assert value.const_value is not None
        with np.errstate(over="ignore"):
            array = value.const_value.numpy().astype(NUMPY[wanted])
        if not np.isfinite(array.astype(np.float32)).all():
            raise InvalidBundle(f"{value.name} holds numbers that are too large for {wanted.name.lower()}")
        name = f"{value.name}.{wanted.name.lower()}"
        weight = ir.Value(
            name=name, shape=value.shape, type=ir.TensorType(wanted), const_value=ir.tensor(array, wanted, name=name)
        )
        self._graph.register_initializer(weight)
        return weight

    def _node(self, value: ir.Value, wanted: ir.DataType, before: ir.Node) -> ir.Value:
        cast = _cast(value, wanted, f"{value.name}.{wanted.name.lower()}")
        self._graph.insert_before(before, cast)
        return cast.outputs[0]

    def _widened(self, value: ir.Value) -> ir.Value:
        name, value.name = value.name, f"{value.name}.{self._dtype.name.lower()}.out"
        assert name is not None
        cast = _cast(value, ir.DataType.FLOAT, name)
        self._graph.append(cast)
        return cast.outputs[0]


def _cast(value: ir.Value, wanted: ir.DataType, name: str) -> ir.Node:
    out = ir.Value(name=name, shape=value.shape, type=ir.TensorType(wanted))
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", wanted)], outputs=[out], name=f"cast.{name}")


def _is_data(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT
