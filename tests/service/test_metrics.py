"""What Prometheus sees of a service, the same on both hosts."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import grpc
import httpx
import pytest

from deocc_service.metrics import METRICS
from tests.service.asking import as_json, complete
from tests.service.hosts import Host

SETTLED = 45.0  # seconds after which Ray's agents have reported


def risen(host: Host, before: dict[str, float], expected: dict[str, float]) -> dict[str, float]:
    """The values, once those expected have risen by so much."""
    end = time.monotonic() + SETTLED
    while True:
        now = host.metrics()
        if all(now.get(name, 0.0) - before.get(name, 0.0) >= by for name, by in expected.items()):
            return now
        assert time.monotonic() < end, {name: (before.get(name), now.get(name)) for name in expected}
        time.sleep(0.3)


def test_requests_refusals_and_cancellations_are_counted_by_few_labels(host: Host) -> None:
    before = host.metrics()
    request = complete(num_samples=2)
    host.rpc.Complete(request, timeout=10)
    assert host.http.post("/v1/complete", json=as_json(request)).status_code == 200
    assert host.http.post("/v1/complete", json=as_json(complete(steps=1000))).status_code == 413
    for path in ("/v1/nothing", "/v1/" + "x" * 50):
        host.http.get(path)
    call = host.rpc.Complete.future(complete(text="sleep .1", steps=60))
    time.sleep(0.5)
    call.cancel()
    with pytest.raises(httpx.ReadTimeout):
        host.http.post("/v1/complete", json=as_json(complete(text="sleep .1", steps=60)), timeout=0.5)
    other = complete()
    other.engine_id = "other"
    with pytest.raises(grpc.RpcError):
        host.rpc.Complete(other, timeout=10)
    labels = {
        'code="OK",method="Complete",protocol="grpc"': 1,
        'code="OK",method="Complete",protocol="http"': 1,
        'code="TOO_LARGE",method="Complete",protocol="http"': 1,
        'code="NOT_FOUND",method="Complete",protocol="grpc"': 1,
        'code="404",method="other",protocol="http"': 2,
        'code="CANCELLED",method="Complete",protocol="grpc"': 1,
        'code="CANCELLED",method="Complete",protocol="http"': 1,
    }
    now = risen(
        host,
        before,
        {
            **{f"deocc_requests_total{{{one}}}": by for one, by in labels.items()},
            'deocc_cancellations_total{method="Complete"}': 2,
            "deocc_step_seconds_count": 16,
            'deocc_stage_seconds_count{stage="decode"}': 2,
            "deocc_embedding_cache_hits_total": 1,
        },
    )
    assert now['deocc_engine_info{engine="deocc-fake@0123456789abcdef",runtime="unknown"}'] >= 1
    assert now["deocc_model_memory_bytes"] > 50e6
    assert not [name for name in now if "x" * 50 in name or "nothing" in name]


def test_every_metric_that_is_exported_is_documented(host: Host) -> None:
    documented = {metric.name for metric in METRICS}
    suffixes = ("_bucket", "_count", "_sum", "_created")
    for name in {name.partition("{")[0] for name in host.metrics()}:
        base = next((name.removesuffix(s) for s in suffixes if name.endswith(s)), name)
        assert base in documented or f"{base}_total" in documented, name


def test_metrics_are_for_this_machine_alone(host: Host) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing, but chooses the address that others see
        seen = probe.getsockname()[0]
    with pytest.raises(httpx.ConnectError):
        httpx.get(str(httpx.URL(host.metrics_url).copy_with(host=seen)), timeout=2)


def test_the_table_in_the_documentation_is_the_one_in_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.help} |" in page
    assert page.count("\n| `deocc_") == len(METRICS)
