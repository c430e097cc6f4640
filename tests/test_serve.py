"""`deocc serve` with the embedded engine, as `make serve` runs it: three ways of asking, the same bytes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from deocc import Client

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "examples" / "street.png"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Service:
    page: str
    grpc: str
    curl: str


RAY = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(
    scope="module", params=["--local", pytest.param("", id="ray", marks=RAY), pytest.param("--fused", marks=RAY)]
)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    command = [str(BIN / "deocc"), "serve", "--http-port", "0", "--grpc-port", "0", *request.param.split()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert "ready" in ready
        process.stdout.readline()
        (page,) = re.findall(r"http://\S+?:\d+", ready)[:1]
        (target,) = re.findall(r"gRPC on (\S+:\d+)", ready)
        yield Service(page, target, process.stdout.readline().strip())
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(60) == 0


def by_reflection(target: str) -> bytes:
    """What a client without the contract does: asks the service for it."""
    with grpc.insecure_channel(target) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName("deocc.v1.DeocclusionService").FindMethodByName("Complete")
        request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        request = request_class(
            image={"content": PHOTO.read_bytes()},
            prompt={"points": [{"x": 200, "y": 260}]},
            options={"seed": 7},
        )
        call = channel.unary_unary(
            "/deocc.v1.DeocclusionService/Complete",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        png: bytes = call(request, timeout=60).samples[0].rgba_png
        return png


def test_every_client_gets_the_same_bytes(service: Service, tmp_path: Path) -> None:
    with Client(local=True) as here:
        expected = here.complete(PHOTO, points=[(200, 260)], seed=7).png
    asked = ["--point", "200,260", "--seed", "7", "-o", str(tmp_path / "cli.png")]
    subprocess.run([BIN / "deocc", "complete", "--url", service.page, PHOTO, *asked], check=True, capture_output=True)
    form = ["-F", f"image=@{PHOTO}", "-F", "point=200,260", "-F", "seed=7", "-H", "Accept: image/png"]
    curl = subprocess.run(["curl", "-sf", *form, f"{service.page}/v1/complete"], check=True, capture_output=True)
    assert (tmp_path / "cli.png").read_bytes() == expected
    assert curl.stdout == expected
    assert by_reflection(service.grpc) == expected


def test_the_printed_curl_line_works(service: Service, tmp_path: Path) -> None:
    line = service.curl.replace("whole.png", str(tmp_path / "whole.png"))
    subprocess.run(["bash", "-c", line], cwd=ROOT, check=True, capture_output=True, env={**os.environ})
    assert (tmp_path / "whole.png").read_bytes().startswith(b"\x89PNG")
