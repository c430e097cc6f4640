"""No request takes for ever: neither its coming nor its work."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import grpc
import httpx
import pytest

from deocc.v1 import deocclusion_pb2 as pb
from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from tests.service.asking import as_json, complete
from tests.service.conftest import SETTINGS
from tests.service.fake_engine import FakeLoad
from tests.service.hosts import said
from tests.service.test_security import local

HEADERS = ("Host: a", "Connection: close", "Content-Length: 1000")
SLOW = {"text": "sleep .1", "steps": 60, "num_samples": 4}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    settings = SETTINGS.model_copy(update={"body_seconds": 0.5, "request_seconds": 1.5})
    with local(settings, FakeLoad(tmp_path_factory.mktemp("time") / "steps")) as found:
        yield found


@pytest.mark.parametrize("path", ["/v1/complete", "/v1/segment", "/v1/images"])
def test_a_body_that_does_not_come_is_not_waited_for(ports: tuple[int, int], path: str) -> None:
    kind = "image/png" if path == "/v1/images" else "application/json"
    with socket.create_connection(("127.0.0.1", ports[0]), timeout=10) as connection:
        connection.sendall("\r\n".join([f"POST {path} HTTP/1.1", *HEADERS, f"Content-Type: {kind}", "", "{"]).encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"DEADLINE_EXCEEDED" in answer


def test_an_upload_that_does_not_come_is_not_waited_for(ports: tuple[int, int]) -> None:
    def parts() -> Iterator[pb.UploadImageRequest]:
        yield pb.UploadImageRequest(content=b"x")
        time.sleep(2)

    with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel, pytest.raises(grpc.RpcError) as error:
        pb_grpc.DeocclusionServiceStub(channel).UploadImage(parts(), timeout=10)
    assert said(error.value) == ("DEADLINE_EXCEEDED", None)


def test_a_message_that_does_not_come_is_not_waited_for(ports: tuple[int, int]) -> None:
    """A call of one message, from a caller who opens it and sends nothing."""

    def nothing() -> Iterator[bytes]:
        time.sleep(2)
        yield b""

    with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel, pytest.raises(grpc.RpcError) as error:
        channel.stream_unary("/deocc.v1.DeocclusionService/Complete")(nothing(), timeout=10)
    assert said(error.value) == ("DEADLINE_EXCEEDED", None)


def test_work_ends_though_its_caller_would_wait(ports: tuple[int, int]) -> None:
    answer = httpx.post(
        f"http://127.0.0.1:{ports[0]}/v1/complete",
        json=as_json(complete(**SLOW)),
        headers={"X-Deocc-Timeout": "1000"},
        timeout=10,
    )
    assert (answer.status_code, answer.json()["reason"]) == (504, "DEADLINE_EXCEEDED")
    with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel, pytest.raises(grpc.RpcError) as error:
        pb_grpc.DeocclusionServiceStub(channel).Complete(complete(**SLOW))
    assert said(error.value) == ("DEADLINE_EXCEEDED", None)
