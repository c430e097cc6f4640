"""Who may ask: keys, their limits, and TLS, on both hosts."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from deocc.v1 import deocclusion_pb2 as pb
from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from deocc_service.auth import ApiKeys, new_key
from deocc_service.settings import Settings
from tests.service.asking import as_json, complete
from tests.service.conftest import RAY, ROOT, SETTINGS
from tests.service.fake_engine import FakeLoad
from tests.service.hosts import said


@dataclass(frozen=True)
class Secured:
    """A host with keys and TLS."""

    https: str
    grpc: str
    authority: bytes
    keys: dict[str, str]
    ports_before: frozenset[int] = frozenset()  # that somebody listened at before the host was started

    def http(self, key: str | None = None) -> httpx.Client:
        context = ssl.create_default_context(cadata=self.authority.decode())
        headers = {} if key is None else {"Authorization": f"Bearer {self.keys.get(key, key)}"}
        return httpx.Client(base_url=self.https, verify=context, headers=headers, timeout=20)

    def channel(self, **certificate: bytes) -> grpc.Channel:
        return grpc.secure_channel(self.grpc, grpc.ssl_channel_credentials(self.authority, **certificate))

    def rpc(self, channel: grpc.Channel) -> pb_grpc.DeocclusionServiceStub:
        return pb_grpc.DeocclusionServiceStub(channel)

    def metadata(self, key: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.keys[key]}"),)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def secured_settings(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> tuple[Settings, dict[str, str]]:
    folder = tmp_path_factory.mktemp("secured")
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "certificate.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    limits: dict[str, dict[str, int | str]] = {
        "free": {},
        "slow": {"requests_per_minute": 3},
        "narrow": {"concurrency": 1},
        "modest": {"max_priority": "normal"},
    }
    made = {name: new_key(name) for name in limits}
    entries = [{**made[name][1].model_dump(), **limit} for name, limit in limits.items()]
    (folder / "keys.json").write_text(json.dumps(entries))
    chosen = {
        "api_keys_file": folder / "keys.json",
        "tls_certificate": folder / "certificate.pem",
        "tls_key": folder / "key.pem",
        "edges": 1,  # limits hold in each
    }
    return SETTINGS.model_copy(update=chosen), {name: key for name, (key, _) in made.items()}


@contextmanager
def local(settings: Settings, load: FakeLoad) -> Iterator[tuple[int, int]]:
    from deocc_service.local import LocalHost

    ready, over = threading.Event(), asyncio.Event()
    ports: list[int] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        async with LocalHost(settings, load) as host:
            ports.extend((host.http_port, host.grpc_port))
            loops.append(asyncio.get_running_loop())
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    yield ports[0], ports[1]
    loops[0].call_soon_threadsafe(over.set)
    thread.join(30)


PROGRAM = """
import sys
from pathlib import Path
from deocc_service.main import serve
from deocc_service.settings import Settings
from tests.service.fake_engine import FakeLoad
serve(Settings.model_validate_json(sys.argv[1]), load=FakeLoad(Path(sys.argv[2])))
"""


@contextmanager
def on_ray(settings: Settings, load: FakeLoad) -> Iterator[tuple[int, int]]:
    """In a process of its own: one can be in one cluster only."""
    command = [sys.executable, "-c", PROGRAM, settings.model_dump_json(), str(load.steps_file)]
    environ = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        http, rpc = (int(port) for port in re.findall(r":(\d+)", ready)[:2])
        yield http, rpc
        process.terminate()


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=RAY)])
def secured(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    secured_settings: tuple[Settings, dict[str, str]],
    authority: trustme.CA,
) -> Iterator[Secured]:
    settings, keys = secured_settings
    load = FakeLoad(tmp_path_factory.mktemp("secured-load") / "steps")
    before = frozenset(_listening())
    with (local if request.param == "local" else on_ray)(settings, load) as (http, rpc):
        yield Secured(f"https://localhost:{http}", f"localhost:{rpc}", authority.cert_pem.bytes(), keys, before)


def test_without_a_key_nothing_but_health_answers(secured: Secured) -> None:
    body = as_json(complete())
    for key in (None, "wrong", "deocc_" + "a" * 43):
        with secured.http(key) as http:
            assert http.get("/livez").status_code == http.get("/readyz").status_code == 200
            for path in ("/", "/docs", "/openapi.json", "/v1/engines", "/examples.json", "/nothing"):
                assert (path, http.get(path).status_code) == (path, 401)
            answer = http.post("/v1/complete", json=body)
            assert (answer.status_code, answer.json()["reason"]) == (401, "UNAUTHENTICATED")
            assert "Bearer" in answer.headers["www-authenticate"]
    with secured.channel() as channel:
        states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        # Ray's proxy looks once a second.
        assert any(state.status == health_pb2.HealthCheckResponse.SERVING for state in states)
        rpc = secured.rpc(channel)
        calls: list[Callable[..., object]] = [
            lambda **more: rpc.Complete(complete(), timeout=10, **more),
            lambda **more: next(rpc.CompleteStream(pb.CompleteStreamRequest(), timeout=10, **more)),
            lambda **more: rpc.UploadImage(iter([pb.UploadImageRequest(content=b"x")]), timeout=10, **more),
            lambda **more: rpc.ListEngines(pb.ListEnginesRequest(), timeout=10, **more),
        ]
        for call in calls:
            for more in ({}, {"metadata": (("authorization", "Bearer wrong"),)}):
                with pytest.raises(grpc.RpcError) as error:
                    call(**more)
                assert said(error.value) == ("UNAUTHENTICATED", None)
                assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError):
            ProtoReflectionDescriptorDatabase(channel).get_services()


def test_who_has_no_key_is_refused_before_a_message_is_read(secured: Secured) -> None:
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(20)
        yield from ()

    try:
        with secured.channel() as channel:
            prefix = "/deocc.v1.DeocclusionService"
            calls: list[Callable[[], object]] = [
                lambda: channel.stream_unary(f"{prefix}/Complete")(nothing(), timeout=10),
                lambda: channel.stream_unary(f"{prefix}/Segment")(nothing(), timeout=10),
                lambda: channel.stream_unary(f"{prefix}/UploadImage")(nothing(), timeout=10),
            ]
            for call in calls:
                with pytest.raises(grpc.RpcError) as error:
                    call()
                assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        over.set()


def test_ray_does_not_tell_either_what_is_served(secured: Secured) -> None:
    with secured.http() as http:
        assert http.get("/-/routes").status_code in (401, 404)
    tell = "/ray.serve.RayServeAPIService/ListApplications"
    with secured.channel() as tls, grpc.insecure_channel(secured.grpc) as plain:
        for channel in (tls, plain):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(tell)(b"", timeout=5)
    for own in _listening() - secured.ports_before:
        with grpc.insecure_channel(f"127.0.0.1:{own}") as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(tell)(b"", timeout=2)


def test_a_message_that_cannot_be_read_is_the_callers_fault(secured: Secured) -> None:
    with secured.channel() as channel:
        send = channel.unary_unary("/deocc.v1.DeocclusionService/Complete")
        with pytest.raises(grpc.RpcError) as error:
            send(b"\xff" * 9, timeout=10, metadata=secured.metadata("free"))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        upload = channel.stream_unary("/deocc.v1.DeocclusionService/UploadImage")
        with pytest.raises(grpc.RpcError) as error:
            upload(iter([b"\xff" * 9]), timeout=10, metadata=secured.metadata("free"))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_with_a_key_everything_answers(secured: Secured) -> None:
    metadata = secured.metadata("free")
    with secured.http("free") as http, secured.channel() as channel:
        assert http.post("/v1/complete", json=as_json(complete())).status_code == 200
        assert secured.rpc(channel).Complete(complete(), timeout=10, metadata=metadata).samples
        streamed = pb.CompleteStreamRequest(image=complete().image, prompt=complete().prompt)
        assert list(secured.rpc(channel).CompleteStream(streamed, timeout=10, metadata=metadata))[-1].result.samples
    basic = base64.b64encode(f"anyone:{secured.keys['free']}".encode()).decode()
    with secured.http() as http:  # as a browser does that asked its user
        page = http.get("/", headers={"Authorization": f"Basic {basic}"})
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in page.headers


def test_a_key_has_a_rate_and_a_width_of_its_own(secured: Secured) -> None:
    with secured.http("slow") as http:
        answers = [http.get("/v1/engines") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[-1].json()["reason"] == "RATE_LIMITED"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
    with secured.channel() as channel, ThreadPoolExecutor(1) as pool:
        rpc, metadata = secured.rpc(channel), secured.metadata("narrow")
        slow = pool.submit(rpc.Complete, complete(text="sleep .1", steps=10), timeout=20, metadata=metadata)
        time.sleep(0.4)
        with pytest.raises(grpc.RpcError) as error:
            rpc.ListEngines(pb.ListEnginesRequest(), timeout=10, metadata=metadata)
        assert said(error.value) == ("RATE_LIMITED", None)
        assert slow.result().samples
        assert rpc.ListEngines(pb.ListEnginesRequest(), timeout=10, metadata=metadata).engines


def test_a_key_may_ask_for_so_much_priority_and_no_more(secured: Secured) -> None:
    high = complete(priority=pb.PRIORITY_HIGH)
    with secured.http("modest") as modest, secured.http("free") as free, secured.channel() as channel:
        rpc = secured.rpc(channel)
        answer = modest.post("/v1/complete", json=as_json(high))
        assert (answer.status_code, answer.json()["field"]) == (400, "options.priority")
        with pytest.raises(grpc.RpcError) as error:
            rpc.Complete(high, timeout=10, metadata=secured.metadata("modest"))
        assert said(error.value) == ("INVALID_OPTION", "options.priority")
        assert modest.post("/v1/complete", json=as_json(complete())).status_code == 200
        assert rpc.Complete(complete(), timeout=10, metadata=secured.metadata("modest")).samples
        assert free.post("/v1/complete", json=as_json(high)).status_code == 200
        assert rpc.Complete(high, timeout=10, metadata=secured.metadata("free")).samples


def test_a_caller_without_tls_gets_nothing(secured: Secured) -> None:
    port = secured.https.rpartition(":")[2]
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{port}/livez", timeout=5)
    with grpc.insecure_channel(secured.grpc) as channel, pytest.raises(grpc.RpcError):
        secured.rpc(channel).ListEngines(pb.ListEnginesRequest(), timeout=5, metadata=secured.metadata("free"))
    for own in _listening() - secured.ports_before:  # Ray's own port, wherever it is
        with grpc.insecure_channel(f"127.0.0.1:{own}") as channel, pytest.raises(grpc.RpcError):
            secured.rpc(channel).ListEngines(pb.ListEnginesRequest(), timeout=2, metadata=secured.metadata("free"))


def _listening() -> set[int]:
    """Every TCP port of this machine that somebody listens at."""
    lines = [line.split() for file in ("tcp", "tcp6") for line in Path("/proc/net", file).read_text().splitlines()[1:]]
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "0A"}


def test_a_caller_without_certificate_is_never_taken_for_one_with_it(
    tmp_path: Path, secured_settings: tuple[Settings, dict[str, str]], authority: trustme.CA
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    settings = secured_settings[0].model_copy(update={"client_ca": tmp_path / "ca.pem", "api_keys_file": None})
    mine, foreign = (ca.issue_cert("client@example.org") for ca in (authority, trustme.CA()))
    with local(settings, FakeLoad(tmp_path / "steps")) as (http, rpc):
        secured = Secured(f"https://localhost:{http}", f"localhost:{rpc}", authority.cert_pem.bytes(), {})
        for leaf, heard in ((None, False), (foreign, False), (mine, True)):
            context = ssl.create_default_context(cadata=secured.authority.decode())
            pair: dict[str, bytes] = {}
            if leaf is not None:
                leaf.configure_cert(context)
                chain = leaf.cert_chain_pems[0].bytes()
                pair = {"private_key": leaf.private_key_pem.bytes(), "certificate_chain": chain}
            with (
                httpx.Client(base_url=secured.https, verify=context, timeout=5) as client,
                secured.channel(**pair) as c,
            ):
                if heard:
                    assert client.get("/v1/engines").status_code == 200
                    assert secured.rpc(c).ListEngines(pb.ListEnginesRequest(), timeout=5).engines
                    continue
                with pytest.raises(httpx.HTTPError):
                    client.get("/livez")
                with pytest.raises(grpc.RpcError):
                    secured.rpc(c).ListEngines(pb.ListEnginesRequest(), timeout=3)


def test_what_cannot_be_enforced_is_refused(secured_settings: tuple[Settings, dict[str, str]], tmp_path: Path) -> None:
    from deocc_service.ray_host import RayHost

    with pytest.raises(ValueError, match="client_ca"):
        RayHost(secured_settings[0].model_copy(update={"client_ca": tmp_path}), FakeLoad(tmp_path / "steps"))
    with pytest.raises(ValueError, match="go together"):
        Settings(tls_key=tmp_path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "not JSON"),
        ('[{"name": "a"}]', "0.sha256"),
        ('[{"name": "a", "sha256": "' + "0" * 64 + '", "rate": 3}]', "0.rate"),
        ('[{"name": "a", "sha256": "' + "0" * 64 + '"}, {"name": "a", "sha256": "' + "1" * 64 + '"}]', "same name"),
    ],
)
def test_a_wrong_file_of_keys_is_refused_without_telling_what_is_in_it(tmp_path: Path, content: str, word: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(ValueError, match=word) as error:
        ApiKeys.read(tmp_path / "keys.json")
    assert "0000" not in str(error.value)
