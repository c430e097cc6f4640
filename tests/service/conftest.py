"""Both hosts, each started once, serving the fake engine."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from deocc_engines.limits import Limits
from deocc_service.settings import Replicas, Settings
from tests.service.collector import Collector, running_collector
from tests.service.fake_engine import FakeLoad
from tests.service.hosts import QUEUE, SLOTS, Host

ROOT = str(Path(__file__).parents[2])
LIMITS = Limits(max_bytes=200_000, max_pixels=500_000, max_points=8, max_samples=4, max_steps=60)
SETTINGS = Settings(
    edges=2, http_port=0, grpc_port=0, metrics_port=0, slots=SLOTS, queue=QUEUE, limits=LIMITS, drain_seconds=5
)
# Drained for longer than models take to start, so that a new version takes over without loss.
RAY_SETTINGS = SETTINGS.model_copy(update={"segmenters": Replicas(min=2, max=2), "drain_seconds": 60})


def _host(http_port: int, grpc_port: int, metrics_port: int, load: FakeLoad) -> Host:
    client = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=30)
    channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}")
    return Host(client, channel, load, f"http://127.0.0.1:{metrics_port}/metrics")


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "200"  # milliseconds between two reports
    with running_collector() as running:
        yield running


@pytest.fixture(scope="session")
def local_host(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Host]:
    from deocc_service.local import LocalHost

    load = FakeLoad(tmp_path_factory.mktemp("local") / "steps")
    ready, over = threading.Event(), asyncio.Event()
    running: dict[str, object] = {}

    async def serve() -> None:
        async with LocalHost(SETTINGS.model_copy(update={"otlp_endpoint": collector.url}), load) as host:
            running.update(loop=asyncio.get_running_loop(), ports=(host.http_port, host.grpc_port, host.metrics_port))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    host = _host(*running["ports"], load)  # type: ignore[misc]
    with host.http, host.channel:
        yield host
    running["loop"].call_soon_threadsafe(over.set)  # type: ignore[attr-defined]
    thread.join(30)


@pytest.fixture(scope="session")
def ray_host(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Host]:
    from deocc_service.ray_host import RayHost

    load = FakeLoad(tmp_path_factory.mktemp("ray") / "steps")
    os.environ["PYTHONPATH"] = ROOT  # the replicas import the fake engine by name
    settings = RAY_SETTINGS.model_copy(update={"otlp_endpoint": collector.url})
    with RayHost(settings, load, Path("/tmp/deocc-test-ray")) as running:  # a short path: sockets lie in it
        host = _host(running.http_port, running.grpc_port, running.metrics_port, load)
        with host.http, host.channel:
            yield host


# Of Ray 2.60 itself, while it is imported and started.
RAY_WARNINGS = ("ignore::pydantic.warnings.PydanticDeprecatedSince20",)
RAY = [pytest.mark.ray, *(pytest.mark.filterwarnings(warning) for warning in RAY_WARNINGS)]


@pytest.fixture(params=["local", pytest.param("ray", marks=RAY)])
def host(request: pytest.FixtureRequest) -> Host:
    running: Host = request.getfixturevalue(f"{request.param}_host")
    return running
