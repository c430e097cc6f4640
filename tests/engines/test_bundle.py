"""A bundle that was tampered with, or does not fit, is never used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deocc_engines.bundle import Bundle, seal, verify
from deocc_engines.components import load_networks
from deocc_engines.errors import InvalidBundle, NotFound
from deocc_engines.storage import eight_bit, widened
from deocc_training.pack import MANIFEST

WEIGHTS = Path("unet/model.safetensors")


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    shutil.copytree(bundle.path, tmp_path / "copy")
    return tmp_path / "copy"


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def swap_two_files(folder: Path) -> None:
    shutil.copy(folder / "vae/model.safetensors", folder / WEIGHTS)


def drop_a_file(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def add_a_pickle(folder: Path) -> None:
    (folder / "unet/extra.pt").write_bytes(b"\x80\x04.")


def lead_outside(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../secret.json"] = {"sha256": "0" * 64, "size": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("tamper", [flip_a_byte, swap_two_files, drop_a_file, add_a_pickle, lead_outside])
def test_tampering_is_found(copy: Path, tamper: Callable[[Path], None]) -> None:
    verify(str(copy))
    tamper(copy)
    with pytest.raises(InvalidBundle):
        verify(str(copy))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.pop("network.conv_in.bias"), "network.conv_in.bias is missing"),
        (lambda w: w.update({"network.conv_in.bias": torch.zeros(3)}), "network.conv_in.bias has shape [3], not [32]"),
        (
            lambda w: w["network.conv_in.bias"].fill_(torch.nan),
            "network.conv_in.bias holds numbers that are not finite",
        ),
        (lambda w: w.update(more=torch.zeros(1)), "more is not part of the network"),
    ],
)
def test_a_wrong_tensor_is_named(copy: Path, change: Callable[[dict[str, torch.Tensor]], object], named: str) -> None:
    weights = load_file(copy / WEIGHTS)
    change(weights)
    save_file(weights, copy / WEIGHTS)
    with pytest.raises(InvalidBundle, match=r".*") as caught:
        load_networks(seal(copy, {**MANIFEST, "name": "changed"}))
    assert named in caught.value.message


def test_eight_bits_keep_weights_to_half_a_step_of_their_row() -> None:
    torch.manual_seed(0)
    weights = {
        "large": torch.randn(64, 16, 3, 3) * torch.logspace(-6, 2, 64)[:, None, None, None],
        "small": torch.randn(8),
    }
    stored = eight_bit(weights)
    assert stored["large"].dtype == torch.int8
    kept = widened(stored)
    assert kept.keys() == weights.keys()
    step = weights["large"].abs().amax((1, 2, 3), keepdim=True) / 127
    assert ((kept["large"] - weights["large"]).abs() <= 0.501 * step).all()
    assert torch.equal(kept["small"], weights["small"].half())


def test_no_bundle_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify(str(tmp_path))
