"""Every runtime gives what torch gives, and a row the same bytes whatever stands beside it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch

from deocc_engines.bundle import Bundle
from deocc_engines.compile.build import CompileOptions, compile_bundle
from deocc_engines.components import calls_of, load_networks
from deocc_engines.errors import Unavailable
from deocc_engines.runtimes import Runtime, reference
from deocc_engines.runtimes.onnx import OnnxCompiler
from deocc_engines.runtimes.openvino import OpenvinoCompiler
from deocc_engines.runtimes.selection import expected_here, runtime_of


@pytest.fixture(scope="module")
def calls(bundle: Bundle) -> dict[str, object]:
    return calls_of(load_networks(bundle))


def inputs_of(example: tuple[torch.Tensor, ...], seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(e.shape, generator=generator) if e.is_floating_point() else torch.ones_like(e) for e in example
    )


def test_openvino_agrees_with_torch_in_any_company(calls: dict, cache: Path) -> None:
    compiler = OpenvinoCompiler(cache, streams=2)
    engine = Runtime.compiled(compiler.name, calls, compiler)
    plain = Runtime.compiled(reference.NAME, calls, reference.compile_call)
    tolerance = 6e-2 if compiler.name.endswith("bf16") else 2e-3
    for name, call in calls.items():
        rows = [inputs_of(call.example, seed) for seed in range(3)]
        together = getattr(engine, name)(*(torch.cat(parts) for parts in zip(*rows, strict=True)))
        for i, row in enumerate(rows):
            alone, expected = getattr(engine, name)(*row), getattr(plain, name)(*row)
            for a, e, t in zip(
                *(x if isinstance(x, tuple) else (x,) for x in (alone, expected, together)), strict=True
            ):
                assert torch.equal(a, t[i : i + 1])
                assert (a - e).norm() <= tolerance * e.norm(), name


def test_converted_networks_are_kept(calls: dict, cache: Path) -> None:
    compiler = OpenvinoCompiler(cache, streams=1)
    row = inputs_of(calls["denoise"].example, 0)
    first = compiler("denoise", calls["denoise"])[1](*row)
    file = cache / "denoise.xml"
    written = file.stat().st_mtime_ns
    assert torch.equal(OpenvinoCompiler(cache, streams=1)("denoise", calls["denoise"])[1](*row), first)
    assert file.stat().st_mtime_ns == written


def test_without_openvino_it_is_said_and_torch_runs(
    bundle: Bundle, calls: dict, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "deocc_engines.runtimes.openvino")
    with caplog.at_level(logging.WARNING):
        assert runtime_of(bundle, calls, "auto", 1).name == expected_here() == reference.NAME
    assert "NOT running on OpenVINO" in caplog.text
    with pytest.raises(Unavailable, match=r"openvino is not installed; .*serve"):
        runtime_of(bundle, calls, "openvino", 1)
    with pytest.raises(Unavailable, match=r"openvino is not installed; .*serve"):
        compile_bundle(bundle, CompileOptions("openvino"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter's own internals
@pytest.mark.parametrize("name", ["denoise", "sam_decode"])
def test_onnx_runtime_agrees_with_torch(calls: dict, cache: Path, name: str) -> None:
    row = inputs_of(calls[name].example, 0)
    exported, expected = (
        OnnxCompiler(cache)(name, calls[name])[1](*row),
        reference.compile_call(name, calls[name])[1](*row),
    )
    for a, e in zip(*(x if isinstance(x, tuple) else (x,) for x in (exported, expected)), strict=True):
        torch.testing.assert_close(a, e, atol=1e-4, rtol=1e-4)
