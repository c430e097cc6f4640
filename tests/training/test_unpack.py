"""Runs made of a bundle: packed again they are the same weights, and training resumes from them."""

from __future__ import annotations

from pathlib import Path

import torch

from deocc_engines.bundle import COMPONENTS, OPTIONAL, find
from deocc_training import pack
from deocc_training.unpack import unpack


def test_a_bundle_unpacked_and_packed_is_the_same(tmp_path: Path) -> None:
    bundle = find("deocc-mini")
    unpack(bundle.path, tmp_path / "runs")
    pack.main(tmp_path / "runs", tmp_path / "again")
    for component in (*COMPONENTS, *filter(bundle.holds, OPTIONAL)):
        for name in ("config.json", "model.safetensors"):
            assert (tmp_path / "again" / component / name).read_bytes() == (bundle.path / component / name).read_bytes()
    state = torch.load(tmp_path / "runs" / "unet" / "state.pt", weights_only=True)
    assert state["step"] == bundle.manifest["trained"]["unet"]["steps"]
    assert "optimiser" not in state
