"""A replica is lost, and callers do not notice; what was begun again is counted."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.service.asking import complete
from tests.service.conftest import RAY_WARNINGS
from tests.service.hosts import Host
from tests.service.test_metrics import risen

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    *(pytest.mark.filterwarnings(warning) for warning in RAY_WARNINGS),
]
RETRIES = "deocc_retries_total"


def processes(title: str) -> list[int]:
    """Those below this one."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                named = (path / "cmdline").read_bytes().startswith(title.encode())
            except OSError:  # gone meanwhile
                continue
            if named and _is_ours(int(path.name)):
                found.append(int(path.name))
    return found


def _is_ours(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()


def test_what_a_lost_replica_had_begun_is_begun_again_and_counted(ray_host: Host) -> None:
    before = ray_host.metrics()
    request = complete(text="sleep .1", steps=20)
    alone = ray_host.rpc.Complete(request, timeout=30).samples[0].rgba_png
    steps = ray_host.load.steps
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ray_host.rpc.Complete, request, timeout=120)
        while ray_host.load.steps < steps + 3:
            time.sleep(0.05)
        (completer,) = processes("ray::ServeReplica:deocc:Completer")
        os.kill(completer, signal.SIGKILL)
        assert asked.result().samples[0].rgba_png == alone
    risen(ray_host, before, {RETRIES: 1})
