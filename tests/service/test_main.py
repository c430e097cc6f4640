"""`serve`: says when it is ready, logs requests, and lets a running one end after SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.service.asking import as_json, complete

PROGRAM = """
from pathlib import Path
from deocc_service.main import serve
from deocc_service.settings import Settings
from tests.service.fake_engine import FakeLoad
serve(Settings(http_port=0, grpc_port=0, metrics_port=0), local={local}, load=FakeLoad(Path({steps!r})))
"""


@pytest.mark.parametrize("local", [True, pytest.param(False, marks=[pytest.mark.ray, pytest.mark.slow])])
def test_requests_are_logged_and_a_signal_lets_running_ones_end(local: bool, tmp_path: Path) -> None:
    program = PROGRAM.format(local=local, steps=str(tmp_path / "steps"))
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    log = tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=errors, text=True, env=environ
        ) as process,
        ExitStack() as failed,
    ):
        failed.callback(process.kill)  # otherwise what fails here would wait for it
        assert process.stdout is not None
        ready = process.stdout.readline()
        (page,) = re.findall(r"http://\S+:\d+", ready)[:1]
        process.stdout.readline()
        assert process.stdout.readline().strip().startswith("curl ")
        answers: list[httpx.Response] = []
        wrong = httpx.post(f"{page}/v1/complete?token=secret", headers={"X-Request-Id": "abc-1"}, json={"foo": 1})
        assert (wrong.status_code, wrong.headers["x-request-id"]) == (400, "abc-1")
        slow = as_json(complete(text="sleep .3", steps=8))
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{page}/v1/complete", json=slow, timeout=20))
        )
        asking.start()
        while not (tmp_path / "steps").exists() or (tmp_path / "steps").stat().st_size < 3:
            asking.join(0.05)
            assert asking.is_alive()
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert answers[0].status_code == 200
        process.stdout.read()
        assert process.wait(30) == 0
    text = log.read_text()
    refused, answered = (json.loads(line) for line in re.findall(r'\{"request_id".*', text) if "/v1/complete" in line)
    assert (refused["request_id"], refused["code"]) == ("abc-1", "INVALID_INPUT")
    assert (answered["protocol"], answered["method"], answered["code"]) == ("http", "Complete", "OK")
    assert answered["request_id"] == answers[0].headers["x-request-id"]
    assert (answered["seed"], answered["engine"]) == (5, "deocc-fake@0123456789abcdef")
    assert answered["seconds"].keys() == {"wait", "decode", "segment", "complete", "encode"}
    assert answered["milliseconds"] >= 1000 * answered["seconds"]["complete"]
    assert not [word for word in ("secret", "sleep .3") if word in text]
