"""A running service as tests see it."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import httpx
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from tests.service.asking import complete
from tests.service.fake_engine import FakeLoad

SLOTS, QUEUE = 2, 8
RAY_LABELS = {
    *("SessionName", "Version", "NodeAddress", "WorkerId", "Component", "JobId", "ActorId", "NodeId"),
    *("deployment", "replica", "application", "SourceNodeAddress", "NodeType"),
    *("otel_scope_name", "otel_scope_schema_url", "otel_scope_version"),
}


@dataclass(frozen=True)
class Host:
    """A running service, and clients of it."""

    http: httpx.Client
    channel: grpc.Channel
    load: FakeLoad
    metrics_url: str

    def metrics(self) -> dict[str, float]:
        """What Prometheus would see now: values by name and labels, without Ray's own prefix and labels."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(httpx.get(self.metrics_url).text):
            for sample in family.samples:
                name = sample.name.removeprefix("ray_")
                if name.startswith("deocc_"):
                    own = [f'{key}="{value}"' for key, value in sorted(sample.labels.items()) if key not in RAY_LABELS]
                    key = name + (f"{{{','.join(own)}}}" if own else "")
                    found[key] = found.get(key, 0.0) + sample.value
        return found

    @property
    def rpc(self) -> pb_grpc.DeocclusionServiceStub:
        return pb_grpc.DeocclusionServiceStub(self.channel)


def said(error: grpc.RpcError) -> tuple[str, str | None]:
    status = rpc_status.from_call(error)
    assert status is not None
    infos = [error_details_pb2.ErrorInfo() for _ in status.details]
    info = next(info for info, detail in zip(infos, status.details, strict=True) if detail.Unpack(info))
    assert info.domain == "deocc"
    return info.reason, info.metadata.get("field")


def assert_serves(host: Host) -> None:
    assert host.rpc.Complete(complete(), timeout=10).samples
