"""Pictures of textured 3D models, from several sides: Sweet Home 3D's additional furniture (CC0 and CC-BY 3.0).

Furniture, vehicles, plants, people, tools: each model is one identity, its views are variants. VTK renders without a
screen, on Mesa's software rasteriser where there is no GPU (Debian's libosmesa6 and libegl1).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Model", "catalogue", "render"]

log = logging.getLogger(__name__)

CRASHES = ("islandBath",)  # VTK's reader, 9.7
VIEWS = 6
SIDE = 640  # px; more than twice a cut-out's, so that shrinking smooths the edges
_BRIGHT = 0.95  # quantile of the luminance that `_exposed` brings to a random level
_NOT_ALONE = re.compile(r"\b(set|pair|lot|stairs?|room|house|roof|wall|lights?|beam)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Model:
    """One entry of a catalogue."""

    identity: str  # "furniture/category/library-name"
    caption: str
    file: Path  # Wavefront OBJ, its MTL and textures beside it

    def view(self, folder: Path, index: int) -> Path:
        """Where picture `index` of it is kept."""
        return folder / f"{hashlib.sha256(self.identity.encode()).hexdigest()[:16]}-{index}.png"


def catalogue(root: Path) -> list[Model]:
    """Unpack the libraries (.sh3f) below `root` beside themselves, once, and read what they hold."""
    models = []
    for archive in sorted(root.rglob("*.sh3f")):
        folder = archive.with_suffix("")
        if not folder.is_dir():
            with ZipFile(archive) as packed:
                packed.extractall(folder)
        lines = (folder / "PluginFurnitureCatalog.properties").read_text("latin-1").splitlines()
        entries = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        for number in sorted(key.removeprefix("model#") for key in entries if key.startswith("model#")):
            name = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), entries[f"name#{number}"])
            file = folder / entries[f"model#{number}"].lstrip("/")
            usable = file.suffix == ".obj" and file.is_file() and file.stem not in CRASHES
            if usable and not _NOT_ALONE.search(name):
                category = entries[f"category#{number}"].lower().replace("/", " ")
                identity = f"furniture/{category}/{archive.stem.lower()}-{file.stem}"
                models.append(Model(identity, re.sub(r"\W*\d+\W*$", "", name).strip().lower(), file))
    return models


def render(models: list[Model], folder: Path, workers: int) -> Iterator[tuple[Model, Path]]:
    """VIEWS pictures of each model, RGBA PNG, those that are there already left as they are.

    Raises:
        ModuleNotFoundError: VTK is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [model for model in models if not model.view(folder, VIEWS - 1).is_file()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(_pictured, missing, [folder] * len(missing), chunksize=4):
            pass
    for model in models:
        for index in range(VIEWS):
            yield model, model.view(folder, index)


def _pictured(model: Model, folder: Path) -> None:
    rng = np.random.default_rng(list(model.identity.encode()))
    for index, picture in enumerate(_views(model.file, rng)):
        Image.fromarray(picture).save(model.view(folder, index), compress_level=1)


def _views(file: Path, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """From all around and rather above, in another light each; straight alpha [SIDE, SIDE, 4]."""
    try:
        import vtk
        from vtk.util.numpy_support import vtk_to_numpy
    except ImportError as error:
        raise ModuleNotFoundError("pip install vtk") from error
    vtk.vtkObject.GlobalWarningDisplayOff()  # of materials that a model names and lacks
    window, scene = vtk.vtkRenderWindow(), vtk.vtkRenderer()
    window.SetOffScreenRendering(1)
    window.SetSize(SIDE, SIDE)
    window.SetMultiSamples(0)
    window.SetAlphaBitPlanes(1)
    window.AddRenderer(scene)
    reader = vtk.vtkOBJImporter()
    reader.SetFileName(str(file))
    reader.SetFileNameMTL(str(file.with_suffix(".mtl")))
    reader.SetTexturePath(str(file.parent))
    reader.SetRenderWindow(window)
    reader.Update()
    scene.SetBackgroundAlpha(0)
    scene.SetUseDepthPeeling(1)  # of glass
    scene.AutomaticLightCreationOff()
    start = rng.uniform(0, 360)
    for index in range(VIEWS):
        scene.RemoveAllLights()
        for intensity in (rng.uniform(0.5, 0.8), rng.uniform(0.15, 0.35), rng.uniform(0.1, 0.25)):
            light = vtk.vtkLight()
            light.SetLightTypeToCameraLight()
            light.SetPosition(rng.uniform(-1.5, 1.5), rng.uniform(-0.2, 1.5), rng.uniform(0.2, 1.2))
            light.SetIntensity(intensity)
            scene.AddLight(light)
        scene.SetAmbient(*[rng.uniform(0.1, 0.3)] * 3)
        around, above = np.radians([start + (index + rng.uniform(-0.4, 0.4)) * 360 / VIEWS, rng.uniform(0, 40)])
        camera = scene.GetActiveCamera()
        camera.SetFocalPoint(0, 0, 0)
        camera.SetPosition(np.cos(above) * np.sin(around), np.sin(above), np.cos(above) * np.cos(around))
        camera.SetViewUp(0, 1, 0)
        camera.SetViewAngle(rng.uniform(20, 45))
        scene.ResetCamera()
        window.Render()
        grabbed = vtk.vtkWindowToImageFilter()
        grabbed.SetInput(window)
        grabbed.SetInputBufferTypeToRGBA()
        grabbed.ReadFrontBufferOff()
        grabbed.Update()
        pixels = vtk_to_numpy(grabbed.GetOutput().GetPointData().GetScalars()).reshape(SIDE, SIDE, 4)[::-1]
        yield _exposed(pixels, rng.uniform(0.6, 0.95))


def _exposed(rgba: NDArray[np.uint8], level: float) -> NDArray[np.uint8]:
    """As a camera would: bright parts at `level` of full scale, within two stops."""
    solid = rgba[..., 3] > 127
    out = rgba.copy()
    if solid.any():
        bright = float(np.quantile(rgba[solid][:, :3].mean(axis=1), _BRIGHT))
        gain = np.clip(level * 255 / max(bright, 1.0), 0.5, 2.0)
        out[..., :3] = np.clip(rgba[..., :3] * gain, 0, 255)
    return out
