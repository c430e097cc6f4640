"""HTTP bodies to wire messages: JSON, multipart forms, protobuf and raw bytes, read under a limit."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines.errors import InvalidInput, TooLarge, UnsupportedMedia

__all__ = ["chunks", "media_type", "message_from", "uploaded"]

DESCRIPTORS: dict[type, Descriptor] = {kind: kind.DESCRIPTOR for kind in (pb.SegmentRequest, pb.CompleteStreamRequest)}

M = TypeVar("M", pb.SegmentRequest, pb.CompleteStreamRequest)

MAX_FIELDS = 256  # of a form
MAX_FIELD_BYTES = 64 * 1024  # of a form field that is not a file

# Where a form field goes in the message; the rest is handled by name below.
OPTIONS = (
    "text", "preset", "num_samples", "seed", "steps", "guidance_image", "guidance_text", "local_strength",
    "draws", "keep_visible", "output", "mask_encoding", "priority",
)  # fmt: skip
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
LABELS = {"1": "POINT_LABEL_INCLUDE", "0": "POINT_LABEL_EXCLUDE"}


def media_type(request: Request) -> str:
    """Of the body, without parameters, in lower case."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def chunks(request: Request, limit: int, *, field: str | None = None) -> AsyncGenerator[bytes, None]:
    """The body in parts.

    Raises:
        TooLarge: as soon as more than `limit` bytes are announced or have come.
    """
    too_large = TooLarge(f"at most {limit} bytes are accepted", field=field)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    read = 0
    async for chunk in request.stream():
        read += len(chunk)
        if read > limit:
            raise too_large
        yield chunk


async def uploaded(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The file `image` of a form that has nothing else."""
    async with read_form(request, limit) as form:
        for name, value in form.multi_items():
            if name != "image" or not isinstance(value, UploadFile):
                raise InvalidInput("no such form field", field=name)
            yield await value.read()


async def message_from(request: Request, kind: type[M], limit: int) -> M:
    """The request's body as a message.

    Raises:
        UnsupportedMedia: neither JSON nor a form nor the message itself.
        TooLarge: over `limit` bytes.
        InvalidInput: malformed, or with a field that does not exist.
    """
    match media_type(request):
        case "application/json":
            return _from_json(b"".join([chunk async for chunk in chunks(request, limit)]), kind)
        case "application/x-protobuf":
            return _from_binary(b"".join([chunk async for chunk in chunks(request, limit)]), kind)
        case "multipart/form-data":
            async with read_form(request, limit) as form:
                return await _from_form(form, kind)
    raise UnsupportedMedia("send application/json, application/x-protobuf or multipart/form-data")


def _from_binary(body: bytes, kind: type[M]) -> M:
    try:
        return kind.FromString(body)
    except DecodeError:
        raise InvalidInput("the message cannot be read") from None


def _from_json(body: bytes, kind: type[M]) -> M:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the body is not valid JSON") from error
    return parse(value, kind)


def parse(value: object, kind: type[M]) -> M:
    """ParseDict with an error that names the field in wire form."""
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object")
    try:
        return json_format.ParseDict(value, kind(), max_recursion_depth=16)
    except (json_format.Error, TypeError, ValueError, RecursionError) as error:
        found = _fault(value, DESCRIPTORS[kind], "")
        if found is None:
            raise InvalidInput("the body does not fit the request") from error
        path, complaint = found
        raise InvalidInput(complaint, field=path) from error


def _fault(value: dict[str, Any], descriptor: Descriptor, at: str) -> tuple[str, str] | None:
    """Path and complaint of the first member that does not fit. json_format's own messages name Python types."""
    for key, item in value.items():
        field = descriptor.fields_by_name.get(key) or descriptor.fields_by_camelcase_name.get(key)
        if field is None:
            return at + str(key), "no such field"
        path = at + field.name
        inner = item if isinstance(item, list) and field.is_repeated else [item]
        for index, part in enumerate(inner):
            if field.message_type is not None and isinstance(part, dict):
                spot = f"{path}[{index}]" if field.is_repeated else path
                if (found := _fault(part, field.message_type, spot + ".")) is not None:
                    return found
        if not _fits({key: item}, descriptor):
            return path, "the value does not fit the field's type"
        if field.containing_oneof and len(value) > 1 and not _fits(value, descriptor):
            return at.rstrip(".") or path, "only one of these may be given: " + ", ".join(value)
    return None


def _fits(value: dict[str, Any], descriptor: Descriptor) -> bool:
    message: Message = GetMessageClass(descriptor)()
    try:
        json_format.ParseDict(value, message)
    except (json_format.Error, TypeError, ValueError, RecursionError):
        return False
    return True


@asynccontextmanager
async def read_form(request: Request, limit: int) -> AsyncIterator[FormData]:
    """A multipart form, its files in memory: starlette's own reader would put them on disk."""
    # Whole: a cut stream would leak the parser's files.
    body = b"".join([chunk async for chunk in chunks(request, limit)])
    parser = MultiPartParser(
        request.headers, _once(body), max_files=2, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    parser.spool_max_size = limit
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise InvalidInput("the form is malformed, or has too many or too long fields") from error
    try:
        yield form
    finally:
        await form.close()


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def _from_form(form: FormData, kind: type[M]) -> M:
    """Form fields in the shape of JSON, so that both are parsed and refused alike."""
    completing = kind is pb.CompleteStreamRequest
    prompt: dict[str, Any] = {}
    options: dict[str, Any] = {}
    top: dict[str, Any] = {"prompt": prompt}
    files: dict[str, bytes] = {}
    seen: set[str] = set()
    for name, value in form.multi_items():
        if name in seen:
            raise InvalidInput("given more than once", field=name)
        if name != "point":
            seen.add(name)
        if isinstance(value, UploadFile):
            if name not in ("image", "mask"):
                raise InvalidInput("no such file field", field=name)
            files[name] = await value.read()
        elif name == "point":
            points = prompt.setdefault("points", [])
            points.append(_point(value, f"prompt.points[{len(points)}]"))
        elif name == "box":
            corners = _numbers(value.split(","), 4, "prompt.box")
            prompt["box"] = dict(zip(("x_min", "y_min", "x_max", "y_max"), corners, strict=True))
        elif name == "image_id":
            top["image"] = {"image_id": value}
        elif name == "engine_id":
            top["engine_id"] = value
        elif name == "mask_encoding" and not completing:
            top[name] = _enum(name, value)
        elif name in OPTIONS and completing:
            options[name] = _option(name, value)
        elif name == "preview_every" and completing:
            top[name] = value
        else:
            raise InvalidInput("no such form field", field=name)
    if completing:
        top["options"] = options
    return _with_files(parse(top, kind), files)


def _with_files(message: M, files: dict[str, bytes]) -> M:
    if "image" in files:
        if message.HasField("image"):
            raise InvalidInput("give either an image file or an image_id", field="image")
        message.image.content = files["image"]
    if "mask" in files:
        message.prompt.mask.png = files["mask"]
    return message


def _point(text: str, field: str) -> dict[str, Any]:
    parts = text.split(",")
    label = parts.pop() if len(parts) == 3 else "1"
    if label.strip() not in LABELS:
        raise InvalidInput("a point is x,y or x,y,1 or x,y,0", field=field)
    x, y = _numbers(parts, 2, field)
    return {"x": x, "y": y, "label": LABELS[label.strip()]}


def _numbers(parts: list[str], count: int, field: str) -> list[float | str]:
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != count:
        raise InvalidInput(f"expected {count} numbers with commas between them", field=field)
    return [_json_number(value) for value in values]


def _json_number(value: float) -> float | str:
    # Proto JSON writes what JSON numbers cannot say as strings.
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _option(name: str, value: str) -> object:
    field = f"options.{name}"
    if name == "keep_visible":
        if value.lower() not in BOOLEANS:
            raise InvalidInput("expected true or false", field=field)
        return BOOLEANS[value.lower()]
    if name in ("guidance_image", "guidance_text", "local_strength"):
        return _numbers([value], 1, field)[0]
    return _enum(name, value) if name in ("output", "mask_encoding", "priority") else value


def _enum(name: str, value: str) -> str:
    # "full" stands for OUTPUT_FULL, "rle" for MASK_ENCODING_RLE; the long names are accepted too.
    prefix = name.upper() + "_"
    return value if value.upper().startswith(prefix) else prefix + value.upper()
