"""Every answer of an engine says under which licence it is, and whether it may be used commercially."""

from __future__ import annotations

import json

from deocc.v1 import deocclusion_pb2 as pb
from tests.service.asking import as_json, complete, streamed
from tests.service.hosts import Host

TERMS = {"x-deocc-licence": "Apache-2.0", "x-deocc-commercial-use": "true"}  # the fake engine's


def test_over_http(host: Host) -> None:
    body = as_json(complete())
    kinds = ("application/json", "image/png", "text/event-stream")
    answers = [host.http.post("/v1/complete", json=body, headers={"Accept": kind}) for kind in kinds]
    answers.append(host.http.get("/v1/engines"))
    answers.append(host.http.post("/v1/segment", json={key: body[key] for key in ("image", "prompt")}))
    for answer in answers:
        assert answer.status_code == 200
        assert {name: answer.headers[name] for name in TERMS} == TERMS
    listed = json.loads(answers[3].text)["engines"][0]
    assert (listed["licence"], listed["commercial_use"]) == ("Apache-2.0", True)
    assert "x-deocc-licence" not in host.http.get("/livez").headers


def test_over_grpc(host: Host) -> None:
    request = complete()
    segment = pb.SegmentRequest(image=request.image, prompt=request.prompt)
    calls = [
        host.rpc.ListEngines.with_call(pb.ListEnginesRequest(), timeout=20)[1],
        host.rpc.Segment.with_call(segment, timeout=20)[1],
        host.rpc.Complete.with_call(request, timeout=20)[1],
    ]
    stream = host.rpc.CompleteStream(streamed(request), timeout=20)
    assert [*stream][-1].HasField("result")
    for call in (*calls, stream):
        said = {name: value for name, value in call.trailing_metadata() if name in TERMS}
        assert said == TERMS
