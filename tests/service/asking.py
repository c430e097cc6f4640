"""Pictures, and one request said in every way that the service accepts."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from google.protobuf import json_format
from PIL import Image

from deocc.v1 import deocclusion_pb2 as pb

WIDTH, HEIGHT = 64, 48


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def complete(content: bytes | None = None, **options: Any) -> pb.CompleteRequest:
    """A good request; `options` are those of CompleteOptions."""
    request = pb.CompleteRequest(options=pb.CompleteOptions(**{"seed": 5, **options}))
    request.image.content = encoded(picture()) if content is None else content
    request.prompt.points.add(x=20, y=20)
    return request


def streamed(request: pb.CompleteRequest, **more: Any) -> pb.CompleteStreamRequest:
    return pb.CompleteStreamRequest(
        image=request.image, prompt=request.prompt, options=request.options, engine_id=request.engine_id, **more
    )


def as_json(request: Any) -> dict[str, Any]:
    return json_format.MessageToDict(request, preserving_proto_field_name=True)


def as_form(request: pb.CompleteRequest) -> dict[str, Any] | None:
    """Arguments for httpx; None if a form cannot say it."""
    parts: list[tuple[str, tuple[str | None, Any]]] = []
    if request.image.HasField("content"):
        parts.append(("image", ("photo", request.image.content)))
    elif request.image.HasField("image_id"):
        parts.append(("image_id", (None, request.image.image_id)))
    parts.extend(("point", (None, f"{p.x},{p.y},{0 if p.label == 2 else 1}")) for p in request.prompt.points)
    if request.prompt.HasField("box"):
        box = request.prompt.box
        parts.append(("box", (None, f"{box.x_min},{box.y_min},{box.x_max},{box.y_max}")))
    if request.prompt.HasField("mask"):
        if not request.prompt.mask.HasField("png"):
            return None
        parts.append(("mask", ("mask.png", request.prompt.mask.png)))
    if request.engine_id:
        parts.append(("engine_id", (None, request.engine_id)))
    for descriptor, value in request.options.ListFields():
        text = str(value)
        if descriptor.enum_type is not None:
            if value not in descriptor.enum_type.values_by_number:
                return None
            text = descriptor.enum_type.values_by_number[value].name
        parts.append((descriptor.name, (None, text)))
    return {"files": parts}


def events(text: str) -> list[tuple[str, str]]:
    """Name and data of server-sent events."""
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), data.removeprefix("data: ")) for name, data in blocks]
