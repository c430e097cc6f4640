"""Probes, health, reflection, the page: what operators and people meet first."""

from __future__ import annotations

import re
import time

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from deocc.v1 import deocclusion_pb2 as pb
from tests.service.hosts import Host

SERVICE = "deocc.v1.DeocclusionService"


def test_probes(host: Host) -> None:
    assert host.http.get("/livez").status_code == 200
    assert host.http.get("/readyz").json() == {"status": "ready"}


def test_standard_health_serves(host: Host) -> None:
    stub = health_pb2_grpc.HealthStub(host.channel)
    end = time.monotonic() + 10
    for service in ("", SERVICE):
        request = health_pb2.HealthCheckRequest(service=service)
        while stub.Check(request, timeout=5).status != health_pb2.HealthCheckResponse.SERVING:
            assert time.monotonic() < end
            time.sleep(0.1)
    assert next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=5)).status == 1


def test_reflection_names_the_service(host: Host) -> None:
    services = ProtoReflectionDescriptorDatabase(host.channel).get_services()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)


def test_request_ids_are_echoed_or_made(host: Host) -> None:
    assert host.http.get("/livez", headers={"X-Request-Id": "abc-1"}).headers.get_list("x-request-id") == ["abc-1"]
    assert len(host.http.get("/livez").headers.get_list("x-request-id")) == 1
    _, call = host.rpc.ListEngines.with_call(pb.ListEnginesRequest(), metadata=[("x-request-id", "abc-2")])
    assert ("x-request-id", "abc-2") in [(key, value) for key, value in call.trailing_metadata()]


def test_what_is_not_there_is_a_problem(host: Host) -> None:
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/v1/complete", 405), ("POST", "/livez", 405)):
        answer = host.http.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["status"] == status
    for path in ("/examples/../pyproject.toml", "/examples/%2e%2e/pyproject.toml", "/../pyproject.toml"):
        assert host.http.get(path).status_code == 404


def test_page_examples_and_docs(host: Host) -> None:
    assert "<html" in host.http.get("/").text
    assert isinstance(host.http.get("/examples.json").json(), list)
    docs = host.http.get("/docs")
    assert docs.status_code == 200
    files = re.findall(r'(?:src|href)="([^"]+)"', docs.text)
    assert files  # all from the service itself: it must work without the internet
    assert all(file.startswith("/") and host.http.get(file).status_code == 200 for file in files)
    paths = host.http.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/images", "/v1/segment", "/v1/complete", "/v1/engines", "/livez", "/readyz"}
    assert set(paths["/v1/complete"]["post"]["requestBody"]["content"]) == {
        "application/json",
        "application/x-protobuf",
        "multipart/form-data",
    }
