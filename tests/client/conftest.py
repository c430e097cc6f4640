"""A service that answers by script, reached over HTTP and gRPC, blocking and asyncio; and one with a fake engine."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf import json_format
from grpc_status import rpc_status as grpc_status
from PIL import Image

from deocc import AsyncClient, Client
from deocc.grpc_transport import AsyncGrpcTransport, GrpcTransport
from deocc.http_transport import AsyncHttpTransport, HttpTransport
from deocc.v1 import deocclusion_pb2 as v1
from deocc.v1 import deocclusion_pb2_grpc as v1_grpc
from deocc_engines.errors import DeoccError as EngineError
from deocc_service.errors import rpc_status, status_of, to_problem

REQUEST_ID = "request-1"


def png(mode: str = "RGBA", size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], len(mode)), 200, np.uint8).squeeze()).save(out, "PNG")
    return out.getvalue()


def completion(seed: int = 7) -> v1.CompleteResponse:
    box = v1.Box(x_min=1, y_min=2, x_max=5, y_max=6)
    mask = v1.Mask(png=png("L"))
    sample = v1.Sample(rgba_png=png(), amodal_mask=mask, box=box, seed=seed, score=0.75, occluded_fraction=0.5)
    return v1.CompleteResponse(
        samples=[sample],
        modal=v1.ModalMask(mask=mask, score=0.5, box=box),
        image_id="sha256:00",
        size=v1.ImageSize(width=8, height=6),
        engine_id="fake@1",
        timings=v1.Timings(seconds={"complete": 0.25}),
        rim=2,
    )


@dataclass
class Script:
    """Outcomes in order: a message, an engine's error, or for a stream a list of both."""

    outcomes: deque[Any] = field(default_factory=deque)
    requests: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def answer(self, request: Any, headers: dict[str, str]) -> Any:
        self.requests.append(request)
        self.headers.append(headers)
        outcome = self.outcomes.popleft()
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome

    def http(self, request: httpx.Request) -> httpx.Response:
        streamed = request.headers["accept"] == "text/event-stream"
        kind = {
            "/v1/segment": v1.SegmentRequest,
            "/v1/complete": v1.CompleteStreamRequest if streamed else v1.CompleteRequest,
        }.get(request.url.path)
        try:
            message = kind.FromString(request.content) if kind else request.content
            outcome = self.answer(message, dict(request.headers))
        except EngineError as error:
            return self._problem(error)
        if request.headers["accept"] == "application/x-protobuf":
            content = outcome.SerializeToString()
            return httpx.Response(200, content=content, headers={"content-type": "application/x-protobuf"})
        if not isinstance(outcome, list):
            text = json_format.MessageToJson(outcome, preserving_proto_field_name=True)
            return httpx.Response(200, text=text, headers={"content-type": "application/json"})
        return httpx.Response(200, text="".join(map(_event, outcome)), headers={"content-type": "text/event-stream"})

    def _problem(self, error: EngineError) -> httpx.Response:
        problem = to_problem(error, REQUEST_ID)
        headers = {"content-type": "application/problem+json"}
        if "retry_after" in problem:
            headers["retry-after"] = str(problem["retry_after"])
        return httpx.Response(status_of(error).http, json=problem, headers=headers)


def _event(outcome: v1.CompleteStreamResponse | EngineError) -> str:
    if isinstance(outcome, EngineError):
        return "event: error\ndata: " + httpx.Response(200, json=to_problem(outcome, REQUEST_ID)).text + "\n\n"
    name = outcome.WhichOneof("event")
    data = json_format.MessageToJson(getattr(outcome, name), indent=None, preserving_proto_field_name=True)
    return f"event: {name}\ndata: {data}\n\n"


class Servicer(v1_grpc.DeocclusionServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def _answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return self._script.answer(request, dict(context.invocation_metadata()))
        except EngineError as error:
            context.abort_with_status(grpc_status.to_status(rpc_status(error, REQUEST_ID)))

    Segment = Complete = ListEngines = _answer

    def UploadImage(self, request_iterator: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer(b"".join(message.content for message in request_iterator), context)

    def CompleteStream(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        for outcome in self._answer(request, context):
            if isinstance(outcome, EngineError):
                context.abort_with_status(grpc_status.to_status(rpc_status(outcome, REQUEST_ID)))
            yield outcome


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def grpc_target(script: Script) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    v1_grpc.add_DeocclusionServiceServicer_to_server(Servicer(script), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


Ask = Callable[..., Any]


@pytest.fixture(params=["http", "grpc", "async http", "async grpc"])
def ask(request: pytest.FixtureRequest, script: Script) -> Ask:
    """`ask("complete", image, …)` calls that method of a client; a stream comes back as a list."""
    if request.param.endswith("grpc"):
        target = request.getfixturevalue("grpc_target")
        sync, asynchronous = (
            lambda: GrpcTransport(target, timeout=20),
            lambda: AsyncGrpcTransport(target, timeout=20),
        )
    else:
        inner = httpx.MockTransport(script.http)
        sync, asynchronous = (
            lambda: HttpTransport("http://deocc", timeout=20, inner=inner),
            lambda: AsyncHttpTransport("http://deocc", timeout=20, inner=inner),
        )

    def ask_sync(method: str, *args: Any, **kwargs: Any) -> Any:
        with Client(transport=sync()) as client:
            result = getattr(client, method)(*args, **kwargs)
            return list(result) if method == "stream" else result

    async def ask_async(method: str, *args: Any, **kwargs: Any) -> Any:
        async with AsyncClient(transport=asynchronous()) as client:
            result = getattr(client, method)(*args, **kwargs)
            return [event async for event in result] if method == "stream" else await result

    if request.param.startswith("async"):
        return lambda *args, **kwargs: asyncio.run(ask_async(*args, **kwargs))
    return ask_sync


@pytest.fixture(scope="session")
def fake_engine() -> ModuleType:
    path = Path(__file__).parents[1] / "service" / "fake_engine.py"
    spec = importlib.util.spec_from_file_location("deocc_client_fake_engine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
