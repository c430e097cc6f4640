from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from deocc_engines.bundle import Bundle
from deocc_engines.deoccluder import Deoccluder
from deocc_engines.image import Photo
from deocc_engines.loading import load_deoccluder
from tests.engines.compiled import Workshop, make_workshop
from tests.tiny import write_tiny_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def deoccluder(bundle: Bundle) -> Deoccluder:
    return load_deoccluder(str(bundle.path), runtime="torch")[0]


@pytest.fixture(scope="session")
def photo() -> Photo:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    return Photo(pixels, "sha256:test")


@pytest.fixture(scope="session")
def disc() -> np.ndarray:
    """A modal mask of the photo's size: a disc of radius 20 at (50, 40)."""
    y, x = np.mgrid[:90, :120]
    return (x - 50) ** 2 + (y - 40) ** 2 <= 400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of its own, so that converted networks are made anew."""
    monkeypatch.setenv("DEOCC_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Made once, as it takes half a minute; tests take a `workshop`."""
    return make_workshop(tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def workshop(made: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A copy of a compiled bundle, and of the cache that it was made with."""
    shutil.copytree(made.path, tmp_path / "tiny")
    shutil.copytree(made.cache, tmp_path / "cache")
    monkeypatch.setenv("DEOCC_CACHE", str(tmp_path / "cache"))
    return Workshop(tmp_path / "tiny", tmp_path / "cache")
