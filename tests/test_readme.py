"""The README's examples, run as they stand (but for the ports) against the embedded engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from deocc.cli import main
from deocc_service.engine import bundle_loader
from deocc_service.local import LocalHost
from deocc_service.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [b for b in blocks if containing in b]
    return found


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    settings = Settings.read({}, http_port=0, grpc_port=0, metrics_port=0, drain_seconds=1)
    ready, addresses = threading.Event(), []
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with LocalHost(settings, bundle_loader(settings)) as host:
            addresses.append(f"http://127.0.0.1:{host.http_port}")
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(120)
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Where the examples find their pictures and leave theirs."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run_and_agree(url: str, checkout: Path) -> None:
    picture = checkout / "out.png"
    run(["bash", "-c", block("sh", "curl").replace("http://127.0.0.1:8000", url)], checkout)
    over_http = picture.read_bytes()
    with Image.open(picture) as opened:
        assert (opened.mode, opened.size) == ("RGBA", (640, 480))
    run(["deocc", "complete", "examples/street.png", "--point", "200,260", "--seed", "7", "-o", "out.png"], checkout)
    assert picture.read_bytes() == over_http

    run(["bash", "-c", block("sh", "deocc complete")], checkout)
    in_process = {picture.read_bytes(), (checkout / "out-1.png").read_bytes()}
    assert len(in_process) == 2
    run([sys.executable, "-c", block("python", "Client").replace("http://127.0.0.1:8000", url)], checkout)
    assert picture.read_bytes() in in_process  # sample i is drawn with seed + i, and they come best first


def test_the_tools_examples_run(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.delenv("DEOCC_URL", raising=False)
    for line in block("sh", "deocc batch").splitlines():  # in process: six starts of Python take longer than the work
        program, *arguments = shlex.split(line)
        assert program == "deocc"
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
    rows = json.loads((checkout / "examples" / "manifest_with_priors.json").read_text())
    assert [len(row["prior_images"]) for row in rows] == [2, 2]
    assert all((checkout / "examples" / name).is_file() for row in rows for name in row["prior_images"])
    with Image.open(checkout / "for-trellis" / "image.png") as opened:
        assert opened.mode == "RGBA"
    report, other = (json.loads((checkout / name / "report.json").read_text()) for name in ("report", "global-only"))
    assert len(report["rows"]) == len(other["rows"]) == 1
    assert other["provenance"]["settings"]["local_strength"] == 0
    assert "<svg" in (checkout / "report" / "report.html").read_text()
    assert "local_strength: None in A, 0.0 in B" in capsys.readouterr().out
