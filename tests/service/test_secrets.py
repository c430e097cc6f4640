"""API keys, and the token of Ray's cluster, are in nothing that a host writes, whatever is asked and goes wrong."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from deocc.v1 import deocclusion_pb2 as pb
from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from deocc_service.auth import new_key
from tests.service.asking import as_json, complete
from tests.service.conftest import ROOT, SETTINGS
from tests.service.fake_engine import CRASH

PROGRAM = """
import sys
from pathlib import Path
from deocc_service.main import serve
from deocc_service.settings import Settings
from tests.service.fake_engine import FakeLoad
serve(Settings.model_validate_json(sys.argv[1]), local=sys.argv[2] == "local", load=FakeLoad(Path(sys.argv[3])))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dk-", dir="/tmp"))  # a short path: Ray's sockets lie in it
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize(
    ("host", "log_format"),
    [("local", "json"), ("local", "text"), pytest.param("ray", "json", marks=[pytest.mark.ray, pytest.mark.slow])],
)
def test_keys_are_in_nothing_that_is_written(host: str, log_format: str, folder: Path) -> None:
    known, entry = new_key("mine")
    narrow, narrow_entry = new_key("narrow")
    token = secrets.token_hex(32)
    entries = [entry.model_dump(), {**narrow_entry.model_dump(), "requests_per_minute": 1}]
    (folder / "keys.json").write_text(json.dumps(entries))
    settings = SETTINGS.model_copy(
        update={"api_keys_file": folder / "keys.json", "log_format": log_format, "edges": 1, "drain_seconds": 2}
    )
    environ = {**os.environ, "PYTHONPATH": ROOT, "RAY_TMPDIR": str(folder)}
    environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    command = [sys.executable, "-c", PROGRAM, settings.model_dump_json(), host, str(folder / "steps")]
    with (
        (folder / "output").open("w") as output,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, text=True, env=environ) as process,
    ):
        assert process.stdout is not None
        http, rpc = (int(port) for port in re.findall(r":(\d+)", process.stdout.readline())[:2])
        wrong = [f"deocc_{secrets.token_urlsafe(32)}" for _ in range(3)]
        sent = [known, narrow, token, *wrong, *_ask(http, rpc, known, narrow, wrong)]
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        (folder / "printed").write_text(process.stdout.read())
        assert process.wait(60) == 0
    (folder / "keys.json").unlink()
    written = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and not file.is_symlink()}
    assert host == "local" or [file for file in written if "logs" in file.parts]
    lines = b"".join(written.values())
    assert lines.count(b"UNAUTHENTICATED") >= 6  # all this was logged
    assert b"RATE_LIMITED" in lines
    assert b"ENGINE_FAILURE" in lines
    hashes = [one["sha256"] for one in entries]
    for secret in (*sent, *hashes):
        assert not [file.name for file, content in written.items() if secret.encode() in content], secret[:9]


def _ask(http: int, rpc: int, known: str, narrow: str, wrong: list[str]) -> list[str]:
    """Right and wrong keys in every place where one may be; further texts that name them."""
    body, crash = as_json(complete()), as_json(complete(text=CRASH))
    page = f"http://127.0.0.1:{http}"
    basic = {key: base64.b64encode(f"anyone:{key}".encode()).decode() for key in (known, *wrong)}
    for key, expected in ((known, 200), *((one, 401) for one in wrong)):
        for authorization in (f"Bearer {key}", f"Basic {basic[key]}", f"bearer  {key}"):
            headers = {"Authorization": authorization}
            answer = httpx.post(f"{page}/v1/complete", json=body, headers=headers, timeout=20)
            assert answer.status_code == expected
            assert key not in answer.text
        assert httpx.get(f"{page}/v1/engines?key={key}&api_key={key}", timeout=20).status_code == 401
        httpx.get(f"{page}/v1/engines", headers={"Authorization": f"Token {key}", "X-Api-Key": key}, timeout=20)
    mine = {"Authorization": f"Bearer {known}"}
    assert httpx.post(f"{page}/v1/complete", json=crash, headers=mine, timeout=20).status_code == 500
    assert httpx.post(f"{page}/v1/complete", content=known, headers=mine, timeout=20).status_code == 415
    assert httpx.post(f"{page}/v1/complete", json={known: known}, headers=mine, timeout=20).status_code == 400
    for expected in (200, 429):
        few = httpx.get(f"{page}/v1/engines", headers={"Authorization": f"Bearer {narrow}"}, timeout=20)
        assert few.status_code == expected
    with grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel:
        stub = pb_grpc.DeocclusionServiceStub(channel)
        metadata = (("authorization", f"Bearer {known}"), ("x-api-key", known))
        assert stub.Complete(complete(), timeout=20, metadata=metadata).samples
        with pytest.raises(grpc.RpcError):
            stub.Complete(complete(text=CRASH), timeout=20, metadata=metadata)
        for key in wrong:
            with pytest.raises(grpc.RpcError):
                stub.Complete(complete(), timeout=20, metadata=(("authorization", f"Bearer {key}"),))
        with pytest.raises(grpc.RpcError):
            stub.ListEngines(pb.ListEnginesRequest(), timeout=20, metadata=(("authorization", f"Basic {known}"),))
    return list(basic.values())
