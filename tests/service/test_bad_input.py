"""Whatever is wrong is said alike on both protocols and both hosts, and the next request is served."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from deocc.v1 import deocclusion_pb2 as pb
from tests.service.asking import HEIGHT, WIDTH, as_form, as_json, complete, encoded, picture, streamed
from tests.service.hosts import Host, assert_serves, said

Case = tuple[pb.CompleteRequest, str, str | None]


def case(reason: str, field: str | None, change: Callable[[pb.CompleteRequest], Any]) -> Case:
    request = complete()
    change(request)
    return request, reason, field


def of_image(reason: str, content: bytes) -> Case:
    return complete(content), reason, "image.content"


def of_option(reason: str, **options: Any) -> Case:
    return complete(**options), reason, f"options.{next(iter(options))}"


def of_point(reason: str, field: str, *points: tuple[float, float, int]) -> Case:
    request = complete()
    del request.prompt.points[:]
    for x, y, label in points:
        request.prompt.points.add(x=x, y=y, label=label)
    return request, reason, field


def of_box(field: str, *corners: float) -> Case:
    request = complete()
    request.prompt.box.CopyFrom(pb.Box(**dict(zip(("x_min", "y_min", "x_max", "y_max"), corners, strict=True))))
    return request, "INVALID_PROMPT", field


def of_mask(mask: pb.Mask, *, keep_points: bool = False, reason: str = "INVALID_PROMPT") -> Case:
    request = complete()
    if not keep_points:
        del request.prompt.points[:]
    request.prompt.mask.CopyFrom(mask)
    return request, reason, "prompt.mask"


def grey(value: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    return encoded(Image.new("L", size, value))


def noise(side: int) -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(1).integers(0, 255, (side, side, 3), np.uint8)))


def rle(width: int = WIDTH, height: int = HEIGHT, counts: bytes = b"zzzz") -> pb.Mask:
    return pb.Mask(rle=pb.RunLengthMask(width=width, height=height, counts=counts))


CASES: dict[str, Case] = {
    "empty image": of_image("INVALID_IMAGE", b""),
    "truncated": of_image("INVALID_IMAGE", encoded(picture())[:-200]),
    "not an image": of_image("INVALID_IMAGE", b"%PDF-1.7 " * 20),
    "gif": of_image("INVALID_IMAGE", encoded(picture(), "GIF")),
    "too many pixels": of_image("TOO_LARGE", encoded(Image.new("RGB", (4000, 4000)))),
    "too many bytes": of_image("TOO_LARGE", noise(300)),
    "too small": of_image("INVALID_IMAGE", encoded(picture(4, 4))),
    "16 bit": of_image("INVALID_IMAGE", encoded(Image.fromarray(np.full((32, 32), 40_000, np.uint16)))),
    "cmyk": of_image("INVALID_IMAGE", encoded(picture().convert("CMYK"), "JPEG")),
    "palette": of_image("INVALID_IMAGE", encoded(picture().convert("P"))),
    "animated": of_image("INVALID_IMAGE", encoded(picture(), save_all=True, append_images=[picture().rotate(90)])),
    "no image": case("INVALID_INPUT", "image", lambda r: r.ClearField("image")),
    "unknown image": case("NOT_FOUND", "image.image_id", lambda r: setattr(r.image, "image_id", "sha256:00")),
    "unknown engine": case("NOT_FOUND", "engine_id", lambda r: setattr(r, "engine_id", "nobody")),
    "no prompt": case("INVALID_PROMPT", "prompt", lambda r: r.ClearField("prompt")),
    "NaN": of_point("INVALID_PROMPT", "prompt.points[0].x", (math.nan, 5, 1)),
    "infinite": of_point("INVALID_PROMPT", "prompt.points[0].y", (5, math.inf, 1)),
    "left of the image": of_point("INVALID_PROMPT", "prompt.points[0].x", (-1, 5, 1)),
    "right of the image": of_point("INVALID_PROMPT", "prompt.points[1].x", (5, 5, 1), (WIDTH, 5, 1)),
    "only excluded": of_point("INVALID_PROMPT", "prompt.points", (5, 5, 2)),
    "too many points": of_point("TOO_LARGE", "prompt.points", *[(5, 5, 1)] * 9),
    "empty box": of_box("prompt.box", 5, 5, 5, 9),
    "swapped box": of_box("prompt.box", 9, 9, 5, 5),
    "box outside": of_box("prompt.box.x_max", 5, 5, 500, 9),
    "mask of another size": of_mask(pb.Mask(png=grey(255, (10, 10)))),
    "empty mask": of_mask(pb.Mask(png=grey(0))),
    "colour mask": of_mask(pb.Mask(png=encoded(picture()))),
    "broken mask": of_mask(pb.Mask(png=b"nothing")),
    "mask without encoding": of_mask(pb.Mask()),
    "mask and points": of_mask(pb.Mask(png=grey(255)), keep_points=True),
    "malformed run lengths": of_mask(rle()),
    "run lengths too short": of_mask(rle(counts=b"5")),
    "run lengths of another size": of_mask(rle(10, 10)),
    "no samples": of_option("INVALID_OPTION", num_samples=0),
    "too many samples": of_option("TOO_LARGE", num_samples=5),
    "no steps": of_option("INVALID_OPTION", steps=0),
    "too many steps": of_option("TOO_LARGE", steps=61),
    "no draws": of_option("INVALID_OPTION", draws=0),
    "too many draws": of_option("TOO_LARGE", draws=9),
    "guidance too high": of_option("INVALID_OPTION", guidance_image=99),
    "guidance negative": of_option("INVALID_OPTION", guidance_text=-1),
    "guidance NaN": of_option("INVALID_OPTION", guidance_text=math.nan),
    "strength above 1": of_option("INVALID_OPTION", local_strength=1.5),
    "no such priority": of_option("INVALID_OPTION", priority=9),
    "no such output": of_option("INVALID_OPTION", output=9),
    "no such mask encoding": of_option("INVALID_OPTION", mask_encoding=9),
    "no such preset": of_option("INVALID_OPTION", preset="no-such"),
    "text too long": of_option("TOO_LARGE", text="x" * 301),
}  # fmt: skip

HTTP_STATUS = {"NOT_FOUND": 404, "TOO_LARGE": 413}


@pytest.mark.parametrize("name", CASES)
def test_bad_requests_are_refused_alike(host: Host, name: str) -> None:
    request, reason, field = CASES[name]
    with pytest.raises(grpc.RpcError) as unary:
        host.rpc.Complete(request, timeout=10)
    with pytest.raises(grpc.RpcError) as stream:
        list(host.rpc.CompleteStream(streamed(request), timeout=10))
    code = grpc.StatusCode.NOT_FOUND if reason == "NOT_FOUND" else grpc.StatusCode.INVALID_ARGUMENT
    for error in (unary.value, stream.value):
        assert (error.code(), said(error)) == (code, (reason, field))
    answers = [host.http.post("/v1/complete", json=as_json(request))]
    answers.append(host.http.post("/v1/complete", json=as_json(request), headers={"Accept": "text/event-stream"}))
    binary = {"Content-Type": "application/x-protobuf", "Accept": "application/x-protobuf"}
    answers.append(host.http.post("/v1/complete", content=request.SerializeToString(), headers=binary))
    if (form := as_form(request)) is not None:
        answers.append(host.http.post("/v1/complete", **form))
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["reason"], problem.get("field")) == (reason, field), problem
        assert answer.status_code == problem["status"] == HTTP_STATUS.get(reason, 400)
        assert problem["request_id"] == answer.headers["x-request-id"]
    assert_serves(host)


@pytest.mark.parametrize(
    ("arguments", "status", "field"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, None),
        ({"json": []}, 400, None),
        ({"content": b"\xff" * 9, "headers": {"content-type": "application/x-protobuf"}}, 400, None),
        ({"content": b"x" * 1_600_000, "headers": {"content-type": "application/x-protobuf"}}, 413, None),
        ({"json": {"prompt": {"points": [{"x": 1, "y": 2}, {"z": 1}]}}}, 400, "prompt.points[1].z"),
        ({"json": {"options": {"seed": -1}}}, 400, "options.seed"),
        ({"json": {"options": {"seed": 2**32}}}, 400, "options.seed"),
        ({"json": {"options": {"output": "NONE"}}}, 400, "options.output"),
        ({"json": {"options": {"priority": "URGENT"}}}, 400, "options.priority"),
        ({"data": {"priority": "urgent"}, "files": {"image": b"x"}}, 400, "options.priority"),
        ({"json": {"image": {"image_id": "a", "content": "aa"}}}, 400, "image"),
        ({"data": {"colour": "red"}, "files": {"image": b"x"}}, 400, "colour"),
        ({"data": {"seed": ["1", "2"]}, "files": {"image": b"x"}}, 400, "seed"),
        ({"data": {"point": "here"}, "files": {"image": b"x"}}, 400, "prompt.points[0]"),
        ({"data": {"steps": "many"}, "files": {"image": b"x"}}, 400, "options.steps"),
        ({"json": {}, "headers": {"X-Deocc-Timeout": "soon"}}, 400, "X-Deocc-Timeout"),
        ({"content": b"hello", "headers": {"content-type": "text/plain"}}, 415, None),
        ({"content": b"x" * 1_600_000, "headers": {"content-type": "application/json"}}, 413, None),
        ({"content": (b"x" * 50_000 for _ in range(40)), "headers": {"content-type": "application/json"}}, 413, None),
    ],
)
def test_bad_bodies_are_problems(host: Host, arguments: dict[str, Any], status: int, field: str | None) -> None:
    if "content" in arguments and not isinstance(arguments["content"], bytes):
        arguments = {**arguments, "content": (b"x" * 50_000 for _ in range(40))}  # chunked, so no length is announced
    answer = host.http.post("/v1/complete", **arguments)
    assert (answer.status_code, answer.json().get("field")) == (status, field), answer.text
    assert_serves(host)


def test_uploads_are_bounded_while_they_arrive(host: Host) -> None:
    parts = (pb.UploadImageRequest(content=b"x" * 50_000) for _ in range(40))
    with pytest.raises(grpc.RpcError) as error:
        host.rpc.UploadImage(parts, timeout=10)
    assert said(error.value) == ("TOO_LARGE", "content")
    answer = host.http.post("/v1/images", content=b"x" * 300_000, headers={"content-type": "image/png"})
    assert (answer.status_code, answer.json()["field"]) == (413, "content")
    assert_serves(host)


def test_failures_keep_their_secrets(host: Host) -> None:
    request = complete(text="crash, please")
    with pytest.raises(grpc.RpcError) as error:
        host.rpc.Complete(request, timeout=10)
    assert error.value.code() is grpc.StatusCode.INTERNAL
    answer = host.http.post("/v1/complete", json=as_json(request))
    assert answer.status_code == 500
    assert said(error.value) == (answer.json()["reason"], None) == ("ENGINE_FAILURE", None)
    for text in (str(error.value), answer.text):
        assert "/" not in text.replace("</", "").split("detail", 1)[-1].split('"request_id"')[0]
        assert "Traceback" not in text
    assert_serves(host)
