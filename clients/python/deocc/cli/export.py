"""``deocc export``: a completed object in the format that another program takes."""

from __future__ import annotations

import io
import json as json_module
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageOps

from deocc.cli.console import console, print_json
from deocc.cli.files import STANDARD, read_photo
from deocc.cli.options import (
    DEFAULT_TIMEOUT,
    Boxes,
    EngineName,
    Grpc,
    Json,
    Local,
    MaskFile,
    Photo,
    Points,
    Preset,
    Quiet,
    Text,
    Timeout,
    Url,
    open_client,
    parse_box,
    parse_points,
)
from deocc.errors import InvalidImage
from deocc.exports import FORMATS, TRELLIS_SIDE, Whole
from deocc.images import image_content, mask_png

__all__ = ["export"]

CHOICES = ", ".join(FORMATS)
INSIDE = 127


def export(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of {CHOICES}.")],
    photo: Photo,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Made if it is not there.")],
    completed: Annotated[
        Path | None,
        typer.Option(help="An RGBA picture that was completed before; --mask is what is visible of it. No engine."),
    ] = None,
    side: Annotated[int, typer.Option(min=16, max=8192, help="Pixels along the square crop.")] = TRELLIS_SIDE,
    point: Points = None,
    box: Boxes = None,
    mask: MaskFile = None,
    text: Text = "",
    preset: Preset = "",
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Same seed, same bytes.")] = None,
    url: Url = None,
    grpc: Grpc = None,
    local: Local = False,
    engine: EngineName = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Complete an object and write it for a 3D generator or an annotation tool.

    trellis: an RGBA square. amodal3r: the photo's crop and a mask of three levels. gena3d: its four files.
    coco: amodal annotations.
    """
    if form not in FORMATS:
        raise typer.BadParameter(f"must be one of {CHOICES}", param_hint="FORMAT")
    if completed is not None and mask is None:
        raise typer.BadParameter("with --completed, say what is visible", param_hint="--mask")
    points, corners = parse_points(point), parse_box(box)
    content = image_content(read_photo(photo))
    if completed is None:
        with open_client(url, grpc, local, engine, timeout) as client:
            found = client.complete(content, points=points, box=corners, mask=mask, text=text, preset=preset, seed=seed)
        rgba, modal, amodal = np.array(found.image), found.modal.mask, found.mask
    else:
        rgba = np.array(_open(completed.read_bytes(), str(completed)).convert("RGBA"))
        modal = np.asarray(Image.open(io.BytesIO(mask_png(mask or completed)))) > INSIDE
        amodal = rgba[..., 3] > INSIDE
    picture = np.array(ImageOps.exif_transpose(_open(content, photo)).convert("RGB"))
    name = "photo.png" if photo == STANDARD else Path(photo).name
    whole = Whole(picture, rgba, modal, amodal, name, text)
    files = _write(output, form, whole, side)
    if json:
        print_json({"format": form, "files": files})
    elif not quiet:
        console().print("\n".join(files), markup=False)


def _open(content: bytes, name: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidImage(f"{name} cannot be read: {error}", field="image.content") from error
    return picture


def _write(folder: Path, form: str, whole: Whole, side: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, value in FORMATS[form](whole, side).items():
        path = folder / name
        if isinstance(value, Image.Image):
            value.save(path)
        else:
            path.write_text(json_module.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        files.append(str(path))
    return files
