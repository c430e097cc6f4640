"""In process, over HTTP and over gRPC: the same bytes. The host and the core are real, the engine is a fake."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import deocc
from deocc.cli import main
from deocc.transport import BlockingTransport
from deocc_service.inprocess import InProcessTransport
from deocc_service.local import LocalHost
from deocc_service.settings import Settings

PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
HERE = {"points": [(30.0, 20.0)], "seed": 5, "num_samples": 2}


@pytest.fixture
def client(fake_engine: ModuleType, tmp_path: Path) -> Iterator[deocc.Client]:
    load = fake_engine.FakeLoad(tmp_path / "steps")
    with deocc.Client(transport=BlockingTransport(lambda: InProcessTransport(Settings.read({}), load))) as client:
        yield client


@pytest.fixture
async def host(fake_engine: ModuleType, tmp_path: Path) -> AsyncIterator[LocalHost]:
    settings = Settings.read({}, http_port=0, grpc_port=0, metrics_port=0, drain_seconds=1)
    async with LocalHost(settings, fake_engine.FakeLoad(tmp_path / "host-steps")) as host:
        yield host


async def test_the_way_makes_no_difference(host: LocalHost, client: deocc.Client) -> None:
    here = await asyncio.to_thread(lambda: client.complete(PHOTO, **HERE))
    ways = {"http": {"url": f"http://127.0.0.1:{host.http_port}"}, "grpc": {"grpc": f"127.0.0.1:{host.grpc_port}"}}
    for way in ways.values():
        async with deocc.AsyncClient(**way) as remote:  # type: ignore[arg-type]
            uploaded = await remote.upload(PHOTO)
            assert uploaded.image_id == here.image_id
            there = await remote.complete(uploaded, **HERE)
            streamed = [event async for event in remote.stream(PHOTO, **HERE)][-1]
            assert isinstance(streamed, deocc.Completion)
            for other in (there, streamed):
                assert other.samples == here.samples
                assert other.modal == here.modal
            (engine,) = await remote.engines()
            assert engine.engine_id == there.engine_id
            with pytest.raises(deocc.InvalidPrompt) as caught:
                await remote.complete(PHOTO, points=[(64, 0)])
            assert caught.value.field == "prompt.points[0].x"
            with pytest.raises(deocc.DeadlineExceeded):
                async with deocc.AsyncClient(**way, timeout=0.3) as hasty:  # type: ignore[arg-type]
                    await hasty.complete(PHOTO, **HERE, text="sleep .2")


def test_errors_in_process_are_the_clients_own(client: deocc.Client, fake_engine: ModuleType) -> None:
    with pytest.raises(deocc.InvalidPrompt) as caught:
        client.complete(PHOTO, points=[(64, 0)])
    assert caught.value.field == "prompt.points[0].x"
    with pytest.raises(deocc.ServerError, match="/secret/path"):  # nothing to hide from its own user
        client.complete(PHOTO, **HERE, text=fake_engine.CRASH)


def test_closing_a_stream_stops_the_work(client: deocc.Client, tmp_path: Path) -> None:
    events = client.stream(PHOTO, points=[(30, 20)], steps=100, text="sleep .02")
    for event in events:
        if isinstance(event, deocc.Progress) and event.step == 3:
            break
    events.close()
    steps = tmp_path / "steps"
    before = steps.stat().st_size
    time.sleep(0.3)
    assert steps.stat().st_size <= before + 1
    abandoned = client.stream(PHOTO, points=[(30, 20)], steps=100, text="sleep .02")
    next(abandoned)
    client.close()  # ends it; the generator's own end, later, has nothing left to do
    before = steps.stat().st_size
    time.sleep(0.3)
    assert steps.stat().st_size <= before + 1
    abandoned.close()


def test_the_command_works_in_process_through_the_entry_point(
    fake_engine: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("fake_local")
    load = fake_engine.FakeLoad(tmp_path / "steps")
    module.open_transport = lambda engine, timeout: InProcessTransport(  # type: ignore[attr-defined]
        Settings.read({}), load, timeout
    )
    monkeypatch.setitem(sys.modules, "fake_local", module)
    folder = tmp_path / "site" / "fake-1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: fake\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[deocc.local]\ntransport = fake_local:open_transport\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delenv("DEOCC_URL", raising=False)
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    with pytest.raises(SystemExit) as caught:
        main(["complete", str(tmp_path / "photo.png"), "--point", "30,20", "-q", "-o", str(tmp_path / "out.png")])
    assert caught.value.code == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert (picture.size, picture.mode) == ((64, 48), "RGBA")
