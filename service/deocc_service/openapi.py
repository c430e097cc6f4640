"""What `/docs` says of bodies and answers: requests are read by hand, under a limit, so FastAPI cannot infer it."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from deocc.v1 import deocclusion_pb2 as pb

__all__ = ["COMPLETE", "DESCRIPTION", "ENGINES", "IMAGES", "LIVEZ", "READYZ", "SEGMENT"]

DESCRIPTION = (
    "A photo and a click in, the whole object out. Coordinates are xy pixels of the upright image, origin top left. "
    "JSON mirrors the `deocc.v1` messages in snake case; images and masks in JSON are base64. "
    "With `application/x-protobuf` the messages themselves are sent, pictures as they are: `SegmentRequest` and "
    "`CompleteStreamRequest`, of which `CompleteRequest` is the beginning."
)

NUMBERS: dict[int, dict[str, Any]] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.TYPE_UINT64: {"type": "string", "pattern": "^[0-9]+$"},
}


def schema(descriptor: Descriptor) -> dict[str, Any]:
    """JSON schema of a message in its proto JSON form."""
    members = {field.name: _field(field) for field in descriptor.fields}
    return {"type": "object", "properties": members, "additionalProperties": False}


def _field(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _field(field.message_type.fields_by_name["value"])}
    if field.message_type is not None:
        inner = schema(field.message_type)
    elif field.enum_type is not None:
        inner = {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    else:
        inner = dict(NUMBERS[field.type])
    return {"type": "array", "items": inner} if field.is_repeated else inner


FILE = {"type": "string", "format": "binary"}
FORM_PROMPT: dict[str, Any] = {
    "image": {**FILE, "description": "PNG, JPEG or WebP"},
    "image_id": {"type": "string", "description": "of an upload, instead of the image"},
    "point": {"type": "array", "items": {"type": "string"}, "description": "x,y or x,y,1; x,y,0 lies off the object"},
    "box": {"type": "string", "description": "x_min,y_min,x_max,y_max, half-open"},
    "mask": {**FILE, "description": "PNG of one channel, the size of the image"},
    "mask_encoding": {"type": "string", "enum": ["png", "rle"]},
    "engine_id": {"type": "string"},
}
FORM_OPTIONS: dict[str, Any] = {
    "text": {"type": "string"},
    "preset": {"type": "string", "description": "one of the engine's presets, for options that are left out"},
    "num_samples": {"type": "integer", "minimum": 1},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    "steps": {"type": "integer", "minimum": 1},
    "guidance_image": {"type": "number", "minimum": 0},
    "guidance_text": {"type": "number", "minimum": 0},
    "local_strength": {"type": "number", "minimum": 0, "maximum": 1},
    "draws": {"type": "integer", "minimum": 1, "description": "a sample is the mean of so many"},
    "keep_visible": {"type": "boolean"},
    "output": {"type": "string", "enum": ["full", "crop"]},
    "priority": {"type": "string", "enum": ["low", "normal", "high"], "description": "a share of the denoiser"},
    "preview_every": {"type": "integer", "minimum": 0},
}
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "reason", "request_id"],
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail", "reason", "field", "request_id")},
        **{name: {"type": "integer"} for name in ("status", "retry_after")},
    },
}
TIMEOUT = {
    "name": "X-Deocc-Timeout",
    "in": "header",
    "description": "seconds after which the work is stopped",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def _form(properties: dict[str, Any]) -> dict[str, Any]:
    return {"schema": {"type": "object", "properties": properties, "additionalProperties": False}}


def _operation(body: dict[str, Any] | None, answers: dict[str, Any], errors: tuple[int, ...], status: int = 200) -> Any:
    problem = {"application/problem+json": {"schema": PROBLEM}}
    responses = {code: {"description": "A problem", "content": problem} for code in errors}
    responses[status] = {"description": "Done", "content": answers}
    described: dict[str, Any] = {"responses": responses}
    if body is not None:
        described["openapi_extra"] = {"requestBody": {"required": True, "content": body}, "parameters": [TIMEOUT]}
    return described


def _json(descriptor: Descriptor) -> dict[str, Any]:
    return {"application/json": {"schema": schema(descriptor)}}


BINARY = {"schema": FILE}
PROTOBUF = {"application/x-protobuf": BINARY}
REFUSALS = (400, 404, 413, 415, 429, 500, 503, 504)

IMAGES = _operation(
    {
        **dict.fromkeys(("image/png", "image/jpeg", "image/webp", "application/octet-stream"), BINARY),
        "multipart/form-data": _form({"image": FILE}),
    },
    _json(pb.UploadImageResponse.DESCRIPTOR),
    (400, 413, 415, 429, 500, 504),
    201,
)
SEGMENT = _operation(
    {**_json(pb.SegmentRequest.DESCRIPTOR), "multipart/form-data": _form(FORM_PROMPT), **PROTOBUF},
    {**_json(pb.SegmentResponse.DESCRIPTOR), "image/png": BINARY, **PROTOBUF},
    REFUSALS,
)
COMPLETE = _operation(
    {
        **_json(pb.CompleteStreamRequest.DESCRIPTOR),
        "multipart/form-data": _form({**FORM_PROMPT, **FORM_OPTIONS}),
        **PROTOBUF,
    },
    {
        **_json(pb.CompleteResponse.DESCRIPTOR),
        "image/png": BINARY,
        **PROTOBUF,
        "text/event-stream": {"schema": {"type": "string"}},
    },
    REFUSALS,
)
ENGINES = _operation(None, _json(pb.ListEnginesResponse.DESCRIPTOR), (500, 503))
PROBE = {"application/json": {"schema": {"type": "object", "properties": {"status": {"type": "string"}}}}}
LIVEZ = _operation(None, PROBE, ())
READYZ = _operation(None, PROBE, ())
READYZ["responses"][503] = {"description": "Not ready", "content": PROBE}
