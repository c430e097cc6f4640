"""What Ray Serve lacks, and we go round. When one of these fails after an upgrade, its way round may go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import RAY_WARNINGS

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(warning) for warning in RAY_WARNINGS)]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.service.plain_serve"],
        cwd=ROOT,
        env={**environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_deadlines_do_not_reach_replicas(found: dict[str, Any]) -> None:
    assert not found["deadline"]  # the hook tells them as metadata


def test_standard_health_is_not_served(found: dict[str, Any]) -> None:
    assert found["health"][0] == "UNIMPLEMENTED"  # the hook registers it


def test_grpc_listens_everywhere(found: dict[str, Any]) -> None:
    assert found["anywhere"]  # the hook refuses callers from elsewhere


def test_exceptions_are_told_to_callers(found: dict[str, Any]) -> None:
    code, details, typed = found["raised"]
    assert "a secret" in details  # errors are values in our replicas
    assert (code, typed) != ("NOT_FOUND", True)


def test_what_is_returned_keeps_its_status(found: dict[str, Any]) -> None:
    code, _, typed = found["returned"]
    assert (code, typed) == ("NOT_FOUND", True)  # our errors lean on it


def test_the_status_of_a_stream_without_messages_is_lost(found: dict[str, Any]) -> None:
    assert found["streamed"][0] == "NOT_FOUND"
    assert found["streamed nothing"][0] == "OK"  # the edge sends a message, which the hook drops


def test_a_lost_replica_is_an_internal_error(found: dict[str, Any]) -> None:
    assert found["died"][0] == "INTERNAL"  # the hook says Unavailable; models are asked once more by the edge


def test_replicas_without_cpus_have_one_thread(found: dict[str, Any]) -> None:
    assert found["threads"] == "1"  # the host sets the number


def test_grpc_has_no_tls_and_https_asks_for_no_certificate(found: dict[str, Any]) -> None:
    assert found["tls"] == []  # the hook opens a port of its own
    assert not found["asks_for_certificates"]  # client_ca is refused on Ray


def test_messages_are_nearly_unbounded(found: dict[str, Any]) -> None:
    assert found["largest_message"] >= 2**31 - 1  # the host sets a limit


def test_the_server_has_what_the_hook_takes_hold_of(found: dict[str, Any]) -> None:
    assert found["not_there"] == []


def test_everybody_is_told_what_is_served(found: dict[str, Any]) -> None:
    assert "plain" in found["routes"]  # `middlewares` stands before it
    assert found["applications"][0] == "OK"  # the hook puts its guard before it


def test_shutting_down_cuts_off_what_runs(found: dict[str, Any]) -> None:
    assert found["shut down"][0] not in ("OK", "NOT_FOUND")  # the host deletes the application first, which waits
