"""The same request gives the same bytes in every way of asking, alone or in company."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.protobuf import json_format
from PIL import Image

from deocc.v1 import deocclusion_pb2 as pb
from tests.service.asking import as_form, as_json, complete, encoded, events, picture, streamed
from tests.service.hosts import Host

BINARY = {"Content-Type": "application/x-protobuf", "Accept": "application/x-protobuf"}


def without_times(result: pb.CompleteResponse) -> bytes:
    kept = pb.CompleteResponse()
    kept.CopyFrom(result)
    kept.ClearField("timings")
    return kept.SerializeToString(deterministic=True)


def parsed(text: str) -> pb.CompleteResponse:
    return json_format.Parse(text, pb.CompleteResponse())


@pytest.mark.parametrize("options", [{}, {"num_samples": 3, "mask_encoding": 2}, {"output": 2, "seed": 2**32 - 1}])
def test_every_way_gives_the_same_bytes(host: Host, options: dict[str, int]) -> None:
    request = complete(**options)
    reference = host.rpc.Complete(request, timeout=20)
    assert len(reference.samples) == options.get("num_samples", 1)
    assert [s.score for s in reference.samples] == sorted((s.score for s in reference.samples), reverse=True)
    *messages, last = host.rpc.CompleteStream(streamed(request, preview_every=2), timeout=20)
    kinds = [message.WhichOneof("event") for message in messages]
    assert kinds[0] == "modal"
    assert {"progress", "preview", "sample"} <= set(kinds)
    sse = host.http.post(
        "/v1/complete", json=as_json(streamed(request, preview_every=2)), headers={"Accept": "text/event-stream"}
    )
    # Samples of one request run side by side, so their events come in any order.
    assert sorted(name for name, _ in events(sse.text)) == sorted([*kinds, "result"])
    others = {
        "stream": last.result,
        "sse": parsed(events(sse.text)[-1][1]),
        "json": parsed(host.http.post("/v1/complete", json=as_json(request)).text),
        "form": parsed(host.http.post("/v1/complete", **as_form(request)).text),
        "protobuf": pb.CompleteResponse.FromString(
            host.http.post("/v1/complete", content=request.SerializeToString(), headers=BINARY).content
        ),
    }
    for way, other in others.items():
        assert without_times(other) == without_times(reference), way
    png = host.http.post("/v1/complete", **as_form(request), headers={"Accept": "image/png"})
    assert png.content == reference.samples[0].rgba_png
    assert png.headers["x-deocc-seed"] == str(reference.samples[0].seed)
    assert png.headers["x-image-id"] == reference.image_id


def test_company_changes_nothing(host: Host) -> None:
    alone = without_times(host.rpc.Complete(complete(text="sleep .01"), timeout=20))
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(host.rpc.Complete, complete(seed=i, text="sleep .01"), timeout=20) for i in range(7)]
        again = pool.submit(host.rpc.Complete, complete(text="sleep .01"), timeout=20)
        assert without_times(again.result()) == alone
        assert len({without_times(other.result()) for other in others}) == 7


def test_an_unset_seed_is_drawn_and_echoed(host: Host) -> None:
    request = complete()
    request.options.ClearField("seed")
    first, second = (host.rpc.Complete(request, timeout=20).samples[0] for _ in range(2))
    assert first.seed != second.seed
    again = host.rpc.Complete(complete(seed=first.seed), timeout=20).samples[0]
    assert again.rgba_png == first.rgba_png


def test_an_upload_is_named_by_its_content(host: Host) -> None:
    content = encoded(picture())
    parts = (pb.UploadImageRequest(content=content[i : i + 1000]) for i in range(0, len(content), 1000))
    uploaded = host.rpc.UploadImage(parts, timeout=10)
    assert (uploaded.size.width, uploaded.size.height) == (64, 48)
    over_http = host.http.post("/v1/images", files={"image": content})
    assert over_http.status_code == 201
    assert over_http.json()["image_id"] == uploaded.image_id
    request = complete()
    expected = without_times(host.rpc.Complete(request, timeout=10))
    request.image.image_id = uploaded.image_id
    assert without_times(host.rpc.Complete(request, timeout=10)) == expected


def test_exif_rotation_gives_the_upright_size(host: Host) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    result = host.rpc.Complete(complete(encoded(picture(), "JPEG", exif=exif)), timeout=10)
    assert (result.size.width, result.size.height) == (48, 64)
    with Image.open(io.BytesIO(result.samples[0].rgba_png)) as rgba:
        assert (rgba.size, rgba.mode) == ((48, 64), "RGBA")


def test_segment_is_the_same_on_both_protocols(host: Host) -> None:
    request = pb.SegmentRequest(image=complete().image, prompt=complete().prompt)
    result = host.rpc.Segment(request, timeout=10)
    assert [c.score for c in result.candidates] == pytest.approx([0.9, 0.45])
    answer = json.loads(host.http.post("/v1/segment", json=as_json(request)).text)
    assert base64.b64decode(answer["candidates"][0]["mask"]["png"]) == result.candidates[0].mask.png
    binary = host.http.post("/v1/segment", content=request.SerializeToString(), headers=BINARY)
    assert pb.SegmentResponse.FromString(binary.content).candidates == result.candidates
    png = host.http.post("/v1/segment", json=as_json(request), headers={"Accept": "image/png"})
    assert png.content == result.candidates[0].mask.png


def test_engines_are_listed_without_their_path(host: Host) -> None:
    (engine,) = host.rpc.ListEngines(pb.ListEnginesRequest(), timeout=10).engines
    assert engine.is_default
    assert (engine.defaults.preset, engine.defaults.steps, engine.presets["slow"].steps) == ("fast", 4, 8)
    listed = host.http.get("/v1/engines")
    assert listed.json()["engines"][0]["engine_id"] == engine.engine_id
    assert "secret" not in listed.text


def test_clicks_on_one_image_embed_it_once(host: Host) -> None:
    before = host.load.embedded
    asked = [pb.SegmentRequest(image=pb.ImageSource(content=encoded(picture(61, 43)))) for _ in range(8)]
    for x, request in enumerate(asked):
        request.prompt.points.add(x=x + 10, y=20)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda request: host.rpc.Segment(request, timeout=10), asked))
    assert host.load.embedded == before + 1
