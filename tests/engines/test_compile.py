"""Compiling: what is built, how it is known again, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from deocc_engines.bundle import Bundle
from deocc_engines.compile.build import Built, CompileOptions, compile_bundle
from deocc_engines.compile.external_data import check_external_data
from deocc_engines.compile.key import Recipe
from deocc_engines.compile.plans import build_plan, builder_here
from deocc_engines.compile.precision import narrow
from deocc_engines.errors import InvalidBundle, InvalidOption, Unavailable
from tests.engines.compiled import Workshop

RECIPE = Recipe("0" * 64, {"x": [[1, 4]] * 3}, "f16", ("strongly-typed",), "tensorrt_rtx", "1.7.1", ("89",))


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "1" * 64},
        {"profile": {"x": [[2, 4]] * 3}},
        {"dtype": "bf16"},
        {"flags": ()},
        {"runtime": "tensorrt"},
        {"version": "1.7.2"},
        {"sms": ("86",)},
        {"os": "Windows-AMD64"},
    ],
)
def test_whatever_a_build_depends_on_is_in_its_key(change: dict) -> None:
    assert dataclasses.replace(RECIPE, **change).key != RECIPE.key
    assert dataclasses.replace(RECIPE).key == RECIPE.key


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (CompileOptions("coreml"), "target"),  # type: ignore[arg-type]
        (CompileOptions("openvino", sms=("89",)), "sm"),
        (CompileOptions("onnx", batches=(2,)), "batch"),
        (CompileOptions("openvino", dtype="bf16"), "dtype"),
        (CompileOptions("trt-rtx", sms=("89",), batches=(0,)), "batch"),
    ],
)
def test_options_that_do_not_fit_are_refused(bundle: Bundle, options: CompileOptions, field: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        compile_bundle(bundle, options)
    assert caught.value.field == field


@pytest.mark.slow
def test_a_second_build_is_taken_from_the_cache_and_the_engine_stays_the_same(workshop: Workshop) -> None:
    before, seen = workshop.bundle, list[Built]()
    compile_bundle(before, CompileOptions("openvino"), seen.append)
    assert len(seen) == 9
    assert all(built.cached for built in seen)
    after = workshop.bundle
    after.check()
    assert after.engine_id == before.engine_id
    assert {a.call for a in after.compiled.of("openvino")} == {built.artefact.call for built in seen}


def _graph(workshop: Workshop, call: str) -> Path:
    return next((workshop.cache / "onnx").glob(f"*/{call}/model.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("call", ["denoise", "sam_encode"])
def test_normalisation_and_attention_stay_in_float32(workshop: Workshop, call: str, tmp_path: Path) -> None:
    graph = _graph(workshop, call)
    model = ir.load(graph)
    narrow(model, "f16")
    for node in model.graph:
        if node.op_type in ("LayerNormalization", "GroupNormalization", "Softmax", "Pow", "Sin"):
            assert {value.dtype for value in (*node.inputs, *node.outputs)} <= {ir.DataType.FLOAT, ir.DataType.INT64}
        if node.op_type == "Softmax":  # the product of queries and keys too
            before = node
            while before.op_type not in ("MatMul", "Einsum"):
                before = next(p for p in before.predecessors() if p.op_type not in ("Cast", "Einsum", "Unsqueeze"))
            assert before.outputs[0].dtype == ir.DataType.FLOAT
        if node.op_type in ("Conv", "Gemm"):
            assert {value.dtype for value in node.inputs if value} == {ir.DataType.FLOAT16}
    assert {value.dtype for value in (*model.graph.inputs, *model.graph.outputs)} == {ir.DataType.FLOAT}
    ir.save(model, tmp_path / "narrow.onnx")
    expected, given = _answers(graph), _answers(tmp_path / "narrow.onnx")
    assert 0 < np.linalg.norm(given - expected) < 5e-3 * np.linalg.norm(expected)


def _answers(graph: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {
        port.name: rng.standard_normal([d if isinstance(d, int) else 2 for d in port.shape]).astype(np.float32)
        * (900 if port.name == "t" else 1)
        for port in session.get_inputs()
    }
    return session.run(None, feed)[0]


def _with_weights_at(location: str, folder: Path) -> Path:
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], b"\0\0\0\0", raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    port = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    ends = port("x", onnx.TensorProto.FLOAT, [1]), port("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [ends[0]], [ends[1]], [tensor])
    file = folder / "model.onnx"
    file.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return file


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../b", "..", "", "link.bin", "deep/w.bin"])
def test_weights_outside_of_the_folder_are_not_read(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\0\0\0\0")
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(InvalidBundle):
        check_external_data(_with_weights_at(location, folder))


def test_weights_beside_the_graph_are_fine(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0\0\0\0")
    assert check_external_data(_with_weights_at("w.bin", tmp_path)) == ("w.bin",)


@pytest.mark.slow
def test_trt_rtx_builds_every_call_for_four_generations_of_cards(workshop: Workshop) -> None:
    pytest.importorskip("tensorrt_rtx")
    sms = ("80", "86", "89", "120")
    listing = compile_bundle(workshop.bundle, CompileOptions("trt-rtx", sms=sms, batches=(1,)))
    workshop.bundle.check()
    plans = listing.of("trt-rtx")
    assert len(plans) == 9 * 4
    for artefact in plans:
        assert artefact.plan is not None
        assert f"/sm{artefact.sm}/{artefact.dtype}-b1-1-1.plan" in artefact.plan
        assert artefact.dtype == ("f32" if artefact.call in ("encode_text", "sam_decode") else "f16")
        assert not artefact.parity  # nothing has run it


def test_a_card_that_the_builder_does_not_know_is_refused(bundle: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert "90" not in builder_here("tensorrt_rtx").sms
    with pytest.raises(InvalidOption, match="sm90"):
        compile_bundle(bundle, CompileOptions("trt-rtx", sms=("90",)))


def test_an_unsupported_operator_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    port = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Det", ["x"], ["y"], name="the_culprit")
    ends = port("x", onnx.TensorProto.FLOAT, [1, 2, 2]), port("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [ends[0]], [ends[1]])
    file = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)]), file)
    with pytest.raises(InvalidBundle, match=r"Det 'the_culprit'"):
        build_plan("tensorrt_rtx", file, tmp_path / "x.plan", "89", [[[1, 2, 2]] * 3])


def test_a_builder_that_is_not_installed_is_said_so(bundle: Bundle) -> None:
    with pytest.raises(Unavailable, match="pip install"):
        compile_bundle(bundle, CompileOptions("trt"))
