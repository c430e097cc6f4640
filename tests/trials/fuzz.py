"""Rubbish by the thousand, by both protocols: every answer must be a typed one, never INTERNAL, UNKNOWN or 5xx.

python -m tests.trials.fuzz --cases 3000 [--host ray]

Messages of the contract's types with random and extreme fields, damaged messages, damaged images, and damaged HTTP
bodies and headers, each from a seed that is printed when it fails.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
from collections import Counter
from typing import Any

import grpc
import httpx
from google.protobuf.json_format import MessageToDict
from PIL import Image

from deocc.v1 import deocclusion_pb2 as pb
from tests.trials.service import EXAMPLES, serving

FORBIDDEN = {"INTERNAL", "UNKNOWN", "DATA_LOSS"}
TIMEOUT = 20.0
METHODS = {
    "Segment": pb.SegmentRequest,
    "Complete": pb.CompleteRequest,
    "ListEngines": pb.ListEnginesRequest,
}
NUMBERS = [0.0, -1.0, 1.0, 0.5, 1e-40, 1e38, -1e38, float("nan"), float("inf"), -float("inf"), 255.5]
INTEGERS = [0, 1, 2, 3, 7, 100, 2**31 - 1]
TEXTS = ["", "a", "ball", "\0", "é" * 600, "../../etc/passwd", "sha256:" + "0" * 64, "{}", "\u202e", "a" * 100_000]


def small_image(drawn: random.Random) -> bytes:
    """A picture of a few pixels, in one of the accepted kinds and a few others."""
    mode = drawn.choice(["RGB", "L", "RGBA", "P", "LA", "I;16", "1", "CMYK"])
    size = (drawn.choice([1, 2, 16, 33]), drawn.choice([1, 7, 16, 64]))
    buffer = io.BytesIO()
    kind = drawn.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
    try:
        Image.new(mode, size).save(buffer, kind)
    except (OSError, ValueError, KeyError):
        return b""
    return buffer.getvalue()


def damaged(content: bytes, drawn: random.Random) -> bytes:
    """Cut, lengthened, or with some bytes changed; or as it was."""
    changed = bytearray(content)
    for _ in range(drawn.choice([0, 1, 1, 3, 20])):
        if not changed:
            break
        place = drawn.randrange(len(changed))
        match drawn.randrange(4):
            case 0:
                changed[place] = drawn.randrange(256)
            case 1:
                del changed[place:]
            case 2:
                changed[place:place] = drawn.randbytes(drawn.choice([1, 4, 100]))
            case _:
                del changed[place : place + drawn.choice([1, 8])]
    return bytes(changed)


def fill(message: Any, drawn: random.Random, depth: int = 0) -> Any:
    """Sets some of its fields to what one should not expect."""
    for field in message.DESCRIPTOR.fields:
        if drawn.random() < 0.45:
            continue
        if field.is_repeated:
            for _ in range(drawn.choice([0, 1, 2, 5, 70])):
                if field.message_type is not None:
                    fill(getattr(message, field.name).add(), drawn, depth + 1)
                else:
                    getattr(message, field.name).append(value_of(field, drawn))
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            if depth < 5:
                fill(getattr(message, field.name), drawn, depth + 1)
        else:
            setattr(message, field.name, value_of(field, drawn))
    return message


def value_of(field: Any, drawn: random.Random) -> Any:
    """One value of a scalar field."""
    match field.cpp_type:
        case field.CPPTYPE_DOUBLE | field.CPPTYPE_FLOAT:
            return drawn.choice([*NUMBERS, drawn.uniform(-10, 500)])
        case field.CPPTYPE_BOOL:
            return drawn.random() < 0.5
        case field.CPPTYPE_ENUM:
            return drawn.choice([0, 1, 2, 3, 99])
        case field.CPPTYPE_STRING:
            if field.type == field.TYPE_BYTES:
                return damaged(small_image(drawn), drawn)
            return drawn.choice(TEXTS)
    return drawn.choice(INTEGERS)


def request_of(kind: Any, drawn: random.Random) -> Any:
    """Half of them nearly good: the example with a few fields changed."""
    request = kind()
    if kind is not pb.ListEnginesRequest and drawn.random() < 0.5:
        content = (EXAMPLES / "whole.png").read_bytes()
        request.image.content = content if drawn.random() < 0.7 else damaged(content, drawn)
        request.prompt.points.add(x=330, y=250)
    fill(request, drawn)
    return request


def by_grpc(channel: grpc.Channel, drawn: random.Random) -> str:
    """The status of one call."""
    name = drawn.choice([*METHODS, "UploadImage"])
    path = f"/deocc.v1.DeocclusionService/{name}"
    try:
        if name == "UploadImage":
            parts = [damaged(small_image(drawn), drawn) for _ in range(drawn.choice([0, 1, 3]))]
            messages = [pb.UploadImageRequest(content=part).SerializeToString() for part in parts]
            channel.stream_unary(path)(iter([damaged(m, drawn) for m in messages]), timeout=TIMEOUT)
        else:
            raw = request_of(METHODS[name], drawn).SerializeToString()
            channel.unary_unary(path)(damaged(raw, drawn) if drawn.random() < 0.3 else raw, timeout=TIMEOUT)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def by_http(client: httpx.Client, drawn: random.Random) -> str:
    """The status of one request."""
    path, kind = drawn.choice([("/v1/segment", pb.SegmentRequest), ("/v1/complete", pb.CompleteRequest)])
    headers = {
        "Content-Type": drawn.choice(["application/json"] * 5 + ["text/plain", "multipart/form-data", "x/y; =", ""]),
        "Accept": drawn.choice(["application/json", "image/png", "text/event-stream", "*/*", "a/b", ";;q=", ""]),
        "X-Deocc-Timeout": drawn.choice(["10", "10", "10", "0", "-1", "nan", "soon", "1e400"]),
        "X-Request-Id": drawn.choice(["a", "a" * 500, "%0a", "{}"]),
    }
    match drawn.randrange(4):
        case 0:
            message = MessageToDict(request_of(kind, drawn), preserving_proto_field_name=drawn.random() < 0.5)
            body = json.dumps(message).encode()
            answer = client.post(path, content=damaged(body, drawn) if drawn.random() < 0.3 else body, headers=headers)
        case 1:
            del headers["Content-Type"]
            fields = {drawn.choice(["point", "box", "seed", "text", "steps", "x"]): drawn.choice([*TEXTS[:8], "1,2"])}
            answer = client.post(
                path, files={"image": damaged(small_image(drawn), drawn)}, data=fields, headers=headers
            )
        case 2:
            headers["Content-Type"] = "application/x-protobuf"
            headers["Accept"] = drawn.choice([headers["Accept"], "application/x-protobuf"])
            raw = request_of(kind, drawn).SerializeToString()
            answer = client.post(path, content=damaged(raw, drawn) if drawn.random() < 0.3 else raw, headers=headers)
        case _:
            headers["Content-Type"] = drawn.choice(["image/png", "image/jpeg", "application/octet-stream", "text/html"])
            content = damaged(small_image(drawn), drawn)
            answer = client.post("/v1/images", content=content, headers=headers)
    if answer.status_code >= 500 and answer.status_code != 504:
        return f"5xx {answer.status_code}: {answer.text[:200]}"
    if answer.status_code >= 400 and not answer.headers["content-type"].startswith("application/problem+json"):
        return f"5xx untyped {answer.status_code}"
    if answer.headers["content-type"].startswith("text/event-stream") and "ENGINE_FAILURE" in answer.text:
        return "5xx in a stream"
    return str(answer.status_code)


def main() -> None:
    """Prints how often each status came; status 1 and the seeds if one of them must not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", choices=["local", "ray"], default="local")
    parser.add_argument("--cases", type=int, default=3000, help="by each protocol")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    statuses: Counter[str] = Counter()
    wrong: list[str] = []
    limits = {"limits__max_steps": 3, "limits__max_samples": 2}
    with (
        serving(options.host, **limits) as service,
        httpx.Client(base_url=service.url, timeout=TIMEOUT) as http,
        grpc.insecure_channel(service.grpc) as channel,
    ):
        for case in range(options.cases):
            for name, ask in (("grpc", lambda d: by_grpc(channel, d)), ("http", lambda d: by_http(http, d))):
                said = ask(random.Random(f"{options.seed}/{case}/{name}"))
                statuses[f"{name} {said}"] += 1
                if said in FORBIDDEN or said.startswith("5xx"):
                    wrong.append(f"{options.seed}/{case}/{name}: {said}")
        service.until_answers()
    print(json.dumps({"cases": 2 * options.cases, "statuses": dict(statuses.most_common()), "wrong": wrong}, indent=1))  # noqa: T201
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
