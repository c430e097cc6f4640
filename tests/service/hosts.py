"""A running service as tests see it."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import httpx
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from tests.service.asking import complete
from tests.service.fake_engine import FakeLoad

SLOTS, QUEUE = 2, 8


@dataclass(frozen=True)
class Host:
    """A running service, and clients of it."""

    http: httpx.Client
    channel: grpc.Channel
    load: FakeLoad

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
