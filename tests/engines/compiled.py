"""A bundle that was compiled for OpenVINO and compared, made once; each test takes a copy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from deocc_engines.bundle import Bundle, seal, sha256_of
from deocc_engines.compile.build import CompileOptions, compile_bundle
from deocc_engines.compile.parity import verify_engine
from tests.tiny import tiny_mask_refiner, tiny_refiner, write_tiny_bundle

__all__ = ["Workshop", "edit_listing", "make_workshop"]


@dataclass(frozen=True)
class Workshop:
    """A compiled bundle and the cache that it was made with."""

    path: Path
    cache: Path

    @property
    def bundle(self) -> Bundle:
        return Bundle.open(self.path)


def make_workshop(folder: Path) -> Workshop:
    """A tiny bundle, compiled for OpenVINO and compared."""
    path = folder / "tiny"
    manifest = dict(write_tiny_bundle(path, tiny_refiner(), tiny_mask_refiner()).manifest)
    # Tokens far from zero: what a LayerNorm of the text encoder sees is lost where it is rounded to bfloat16.
    weights = path / "text_encoder/model.safetensors"
    tensors = load_file(weights)
    tensors["lift.bias"] += 100
    save_file(tensors, weights)
    seal(path, {key: value for key, value in manifest.items() if key not in ("schema", "files")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEOCC_CACHE", str(folder / "cache"))
        compile_bundle(Bundle.open(path), CompileOptions("openvino"))
        verify_engine(Bundle.open(path), "openvino")
    return Workshop(path, folder / "cache")


def edit_listing(folder: Path, call: str, *, rehash: bool = True, **changes: Any) -> None:
    """Changes one artefact in the listing, which then holds the hashes that its files have."""
    file = folder / "compiled.json"
    content = json.loads(file.read_text())
    for artefact in content["artefacts"]:
        if artefact["call"] == call:
            artefact.update(changes)
            for name in artefact["files"] if rehash else ():
                artefact["files"][name] = {"sha256": sha256_of(folder / name), "size": (folder / name).stat().st_size}
    file.write_text(json.dumps(content))
