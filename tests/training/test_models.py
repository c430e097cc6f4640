"""What a catalogue of 3D models says is read; the models are rendered where VTK is installed."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from deocc_training import models

CATALOGUE = """# PluginFurnitureCatalog.properties
name=A library
name#1=Caf\\u00e9 table 2
category#1=Living room
model#1=/things/table/table.obj
name#2=Set of knives
category#2=Kitchen
model#2=/things/knives/knives.obj
name#3=Chair
category#3=Living room
model#3=/things/chair.3ds
"""
CUBE = """mtllib cube.mtl
v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
usemtl red
f 1 4 3 2\nf 5 6 7 8\nf 1 2 6 5\nf 4 8 7 3\nf 1 5 8 4\nf 2 3 7 6
"""


def test_a_catalogue_gives_single_objects_with_captions(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "Lib.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE)
        for name in ("table/table.obj", "knives/knives.obj", "chair.3ds"):
            archive.writestr(f"things/{name}", "")
    for _ in range(2):  # the second time it is unpacked already
        (model,) = models.catalogue(tmp_path)
        assert (model.identity, model.caption) == ("furniture/living room/lib-table", "café table")
        assert model.file == tmp_path / "Lib" / "things" / "table" / "table.obj"


def test_a_model_is_rendered_once_from_all_sides(tmp_path: Path) -> None:
    pytest.importorskip("vtk", reason="pip install vtk")
    (tmp_path / "cube.obj").write_text(CUBE)
    (tmp_path / "cube.mtl").write_text("newmtl red\nKd 0.8 0.1 0.1\n")
    model = models.Model("furniture/things/cube", "cube", tmp_path / "cube.obj")
    views = [path for _, path in models.render([model], tmp_path / "views", workers=1)]
    pictures = [np.asarray(Image.open(path)).astype(int) for path in views]
    assert len({picture.tobytes() for picture in pictures}) == models.VIEWS
    for picture in pictures:
        solid = picture[..., 3] > 127
        assert 0.1 < solid.mean() < 0.9
        assert (picture[solid][:, 0] > 1.5 * picture[solid][:, 1]).mean() > 0.95
    written = [path.stat().st_mtime_ns for path in views]
    assert [path.stat().st_mtime_ns for _, path in models.render([model], tmp_path / "views", workers=1)] == written
