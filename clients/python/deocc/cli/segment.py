"""``deocc segment``: what is visible of the object."""

from __future__ import annotations

from typing import Annotated

import typer

from deocc.cli.console import console, print_json
from deocc.cli.files import Target, read_photo
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
    Quiet,
    Timeout,
    Url,
    open_client,
    parse_box,
    parse_points,
)

__all__ = ["segment"]


def segment(
    photo: Photo,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The mask, a folder, or - for standard output.")
    ],
    point: Points = None,
    box: Boxes = None,
    mask: MaskFile = None,
    every: Annotated[bool, typer.Option("--all", help="Write every candidate, not the best alone.")] = False,
    url: Url = None,
    grpc: Grpc = None,
    local: Local = False,
    engine: EngineName = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give the mask of what is visible of the object.

    With --all the candidates become out.png, out-1.png and so on, best first.
    """
    target = Target(output, photo, json=json)
    target.check_count(2 if every else 1)
    points, corners = parse_points(point), parse_box(box)
    with open_client(url, grpc, local, engine, timeout) as client:
        found = client.segment(read_photo(photo), points=points, box=corners, mask=mask)
    chosen = found.candidates if every else found.candidates[:1]
    files = target.write(chosen)
    if json:
        candidates = [
            {"file": file, "score": one.score, "box": one.box.as_tuple()}
            for one, file in zip(chosen, files, strict=True)
        ]
        print_json(
            {
                "candidates": candidates,
                "image_id": found.image_id,
                "width": found.width,
                "height": found.height,
                "engine_id": found.engine_id,
                "timings": dict(found.timings),
            }
        )
    elif not quiet:
        for one, file in zip(chosen, files, strict=True):
            console().print(f"{file}: score {one.score:.2f}", markup=False)
