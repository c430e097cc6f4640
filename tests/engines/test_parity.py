"""The gate: what was tampered with, or gives other numbers than the reference, is found and not served."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import openvino as ov
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from deocc_engines.bundle import Bundle, seal, sha256_of
from deocc_engines.compile.build import CompileOptions, compile_bundle
from deocc_engines.compile.listing import Artefact, Listing
from deocc_engines.compile.parity import Verification, relative_l2, verify_engine
from deocc_engines.compile.thresholds import Thresholds
from deocc_engines.components import calls_of, load_networks
from deocc_engines.errors import InvalidBundle
from deocc_engines.folders import converted_name
from deocc_engines.loading import load_deoccluder
from deocc_engines.runtimes.openvino import convert, runtime_here
from tests.engines.compiled import Workshop, edit_listing

pytestmark = pytest.mark.slow

UNET = "unet/model.safetensors"
IR = "openvino/denoise/model.bin"


def verified(workshop: Workshop) -> Verification:
    return verify_engine(workshop.bundle, "openvino")


def resealed(folder: Path) -> None:
    """A manifest over the files as they are now, and no listing: of another engine it would be refused."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "compiled.json").unlink()
    shutil.rmtree(folder / "openvino")
    seal(folder, {key: value for key, value in manifest.items() if key not in ("schema", "files")})


def test_what_was_compared_is_served_without_converting(
    workshop: Workshop,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        load_deoccluder(str(workshop.path), runtime="openvino")
    assert "converting" not in caplog.text
    assert not (workshop.cache / "openvino").exists()


def test_what_was_never_compared_is_left_aside_and_said_so(
    workshop: Workshop,
    caplog: pytest.LogCaptureFixture,
) -> None:
    edit_listing(workshop.path, "encode_text", parity={})
    load_deoccluder(str(workshop.path), runtime="openvino")
    assert "encode_text as compiled in the bundle was never compared" in caplog.text
    assert [file.stem for file in (workshop.cache / "openvino").glob("*/*.xml")] == ["encode_text"]


def test_a_failed_image_is_not_served(workshop: Workshop) -> None:
    content = json.loads((workshop.path / "compiled.json").read_text())
    for verdicts in content["image"].values():
        verdicts[0] |= {"value": 0.1, "passed": False}
    (workshop.path / "compiled.json").write_text(json.dumps(content))
    with pytest.raises(InvalidBundle, match="the image: mask_iou"):
        load_deoccluder(str(workshop.path), runtime="openvino")


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / IR).read_bytes())
    content[len(content) // 2] ^= 64
    (folder / IR).write_bytes(content)


def swap_two_files(folder: Path) -> None:
    shutil.copy(folder / "openvino/decode_image/model.bin", folder / IR)


def add_a_pickle(folder: Path) -> None:
    (folder / "openvino/denoise/extra.pt").write_bytes(b"\x80\x04.")


def list_a_pickle(folder: Path) -> None:
    add_a_pickle(folder)
    content = json.loads((folder / "compiled.json").read_text())
    entry = {"sha256": sha256_of(folder / "openvino/denoise/extra.pt"), "size": 3}
    content["artefacts"][0]["files"]["openvino/encode_text/extra.pt"] = entry
    (folder / "openvino/denoise/extra.pt").rename(folder / "openvino/encode_text/extra.pt")
    (folder / "compiled.json").write_text(json.dumps(content))


def store_weights_in_a_wrong_dtype(folder: Path) -> None:
    weights = load_file(folder / UNET)
    weights["network.conv_in.weight"] = weights["network.conv_in.weight"].to(torch.int32)
    save_file(weights, folder / UNET)
    resealed(folder)


def put_a_nan_into_the_weights(folder: Path) -> None:
    weights = load_file(folder / UNET)
    weights["network.conv_in.weight"][0, 0, 0, 0] = torch.nan
    save_file(weights, folder / UNET)
    resealed(folder)


def change_the_engine_under_its_listing(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"whole_below": 0.06}))


def list_an_onnx_that_leads_outside(folder: Path) -> None:
    bundle = Bundle.open(folder)
    compile_bundle(bundle, CompileOptions("onnx", calls=("encode_text",)))
    file = folder / "onnx/encode_text/model.onnx"
    model = onnx.load(file, load_external_data=False)
    entry = next(e for t in model.graph.initializer for e in t.external_data if e.key == "location")
    entry.value = "../../unet/model.safetensors"
    file.write_bytes(model.SerializeToString())
    edit_listing(folder, "encode_text")


def a_plan(folder: Path) -> Artefact:
    """As if built for sm89."""
    empty = Artefact("denoise", "trt-rtx", "tensorrt_rtx-1.7.1", "f16", "89", (1, 1, 1), "0" * 64, {})
    plan = folder / str(empty.plan)
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"native code")
    names = ("call", "target", "runtime", "dtype", "sm", "batch", "key")
    said = {name: getattr(empty, name) for name in names} | {"sha256": sha256_of(plan)}
    plan.with_suffix(".json").write_text(json.dumps(said))
    for file in (plan, plan.with_suffix(".json")):
        entry = {"sha256": sha256_of(file), "size": file.stat().st_size}
        empty.files[file.relative_to(folder).as_posix()] = entry
    return empty


def pass_a_plan_off_as_for_another_card(folder: Path) -> None:
    bundle = Bundle.open(folder)
    artefact = a_plan(folder)
    bundle.compiled.with_artefacts([artefact]).write(folder)
    Bundle.open(folder).check()  # so far all is well
    (folder / "trt/denoise/tensorrt_rtx-1.7.1/sm89").rename(folder / "trt/denoise/tensorrt_rtx-1.7.1/sm86")
    content = (folder / "compiled.json").read_text().replace('"sm": "89"', '"sm": "86"').replace("/sm89/", "/sm86/")
    (folder / "compiled.json").write_text(content)


def pass_a_plan_off_as_of_another_dtype(folder: Path) -> None:
    artefact = a_plan(folder)
    Listing.read(folder, Bundle.open(folder).engine_id).with_artefacts([artefact]).write(folder)
    where = folder / "trt/denoise/tensorrt_rtx-1.7.1/sm89"
    for file in list(where.iterdir()):
        file.rename(where / file.name.replace("f16", "bf16"))
    content = (folder / "compiled.json").read_text().replace("/f16-b", "/bf16-b")
    (folder / "compiled.json").write_text(content)
    edit_plan = json.loads(content)
    edit_plan["artefacts"][-1]["dtype"] = "bf16"
    (folder / "compiled.json").write_text(json.dumps(edit_plan))


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (flip_a_byte, f"{IR} was altered"),
        (swap_two_files, f"{IR} was altered"),
        (add_a_pickle, "extra.pt is not in the manifest"),
        (list_a_pickle, "of a kind that bundles do not hold"),
        (store_weights_in_a_wrong_dtype, "network.conv_in.weight is of type torch.int32"),
        (put_a_nan_into_the_weights, "network.conv_in.weight holds numbers that are not finite"),
        (change_the_engine_under_its_listing, "compile again"),
        (list_an_onnx_that_leads_outside, "lie outside of its folder"),
        (pass_a_plan_off_as_for_another_card, "says sm '89'"),
        (pass_a_plan_off_as_of_another_dtype, "says dtype 'f16'"),
    ],
)
def test_tampering_is_found(workshop: Workshop, tamper: Callable[[Path], None], named: str) -> None:
    tamper(workshop.path)
    with pytest.raises(InvalidBundle) as caught:
        verified(workshop)
    assert named in caught.value.message


class _Bfloat16(nn.Module):
    """A LayerNorm as it is in bfloat16."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.bfloat16().float())


class _Rounded(_Bfloat16):
    """One that reads five significant bits, by arithmetic that every processor does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = torch.exp((torch.floor(torch.log2(x.abs().clamp(min=1e-9))) - 4) * math.log(2))
        return self.norm(torch.round(x / step) * step)


# Where it has no bfloat16, rounding to it alone errs by 1e-3 in torch, which the gate allows.
needs_bfloat16 = pytest.mark.skipif(not runtime_here().endswith("bf16"), reason="the processor has no bfloat16")


@pytest.mark.parametrize("worse", [pytest.param(_Bfloat16, marks=needs_bfloat16), _Rounded])
def test_a_narrow_layer_norm_breaks_parity_and_is_not_served(workshop: Workshop, worse: type[_Bfloat16]) -> None:
    networks = load_networks(workshop.bundle)
    layers = networks.text_encoder.layers.layers
    for layer in layers:
        layer.norm1, layer.norm2 = worse(layer.norm1), worse(layer.norm2)
        layer.activation_relu_or_gelu = 0  # off torch's fused path, which takes no other norm
    call = calls_of(networks)["encode_text"]
    ov.save_model(convert(call), workshop.path / "openvino/encode_text/model.xml")
    edit_listing(workshop.path, "encode_text")
    found = verified(workshop)
    failed = {failure.split(":")[0] for failure in found.verdicts.failures()}
    assert failed - {"the image"} == {"encode_text"}  # what comes of it may be bad enough, too
    with pytest.raises(InvalidBundle, match=r"parity failed on openvino.*encode_text"):
        load_deoccluder(str(workshop.path), runtime="openvino")


def test_the_manifests_thresholds_hold_for_what_is_converted_here_too(workshop: Workshop) -> None:
    engine_id = workshop.bundle.engine_id
    file = workshop.path / "manifest.json"
    content = json.loads(file.read_text()) | {"parity": {"relative_l2": {"encode_text": 0.0}}}
    file.write_text(json.dumps(content))
    # The same networks under a new name: they need not be exported and converted again.
    graphs = next((workshop.cache / "onnx").glob(f"{engine_id}*"))
    ready = {xml.parent.name: xml for xml in workshop.path.glob("openvino/*/model.xml")}
    converted = workshop.cache / "converted"
    converted.mkdir()
    for name, xml in ready.items():
        for source in (xml, xml.with_suffix(".bin")):
            shutil.copy(source, converted / f"{name}{source.suffix}")
    resealed(workshop.path)
    shutil.copytree(graphs, graphs.with_name(graphs.name.replace(engine_id, workshop.bundle.engine_id)))
    version = ov.__version__.split("-")[0]
    key = f"{converted_name(workshop.bundle.engine_id)}-torch{torch.__version__}-ov{version}"
    shutil.copytree(converted, workshop.cache / "openvino" / key)
    load_deoccluder(str(workshop.path), runtime="openvino")
    assert not verified(workshop).verdicts.passed
    with pytest.raises(InvalidBundle, match="encode_text: relative_l2"):
        load_deoccluder(str(workshop.path), runtime="openvino")


def test_numbers_that_are_not_finite_never_pass() -> None:
    thresholds = Thresholds.of({}, {"denoise": False})
    one = torch.ones(2, 2)
    for value in (torch.nan, torch.inf):
        assert not thresholds.call("denoise", relative_l2(one * value, one)).passed
    assert relative_l2((one, one * 1.5), (one, one)) == pytest.approx(0.5)
    with pytest.raises(InvalidBundle, match="denoize"):
        Thresholds.of({"parity": {"relative_l2": {"denoize": 1.0}}}, {"denoise": False})
