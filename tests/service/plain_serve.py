"""What Ray Serve does by itself, without our ways round: prints one JSON document of what a client finds.

python -m tests.service.plain_serve
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import ray
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ray import serve
from ray.serve._private import constants, grpc_util, http_util
from ray.serve.config import gRPCOptions

from deocc.v1 import deocclusion_pb2 as pb
from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from deocc_service.surroundings import free_port

LISTENING = "0A"
APPLICATIONS = "/ray.serve.RayServeAPIService/ListApplications"
ANYWHERE = {"00000000", "0" * 32}


class Plain:
    """Answers with what it knows; an engine_id is a command."""

    async def ListEngines(self, request: pb.ListEnginesRequest, grpc_context: Any) -> pb.ListEnginesResponse:  # noqa: N802
        known = {"deadline": hasattr(grpc_context, "time_remaining"), "threads": os.environ.get("OMP_NUM_THREADS")}
        answer = pb.ListEnginesResponse()
        answer.engines.add(engine_id=json.dumps(known))
        return answer

    async def Complete(self, request: pb.CompleteRequest, grpc_context: Any) -> pb.CompleteResponse:  # noqa: N802
        if request.engine_id == "die":
            os._exit(1)
        if request.engine_id == "slow":
            await asyncio.sleep(10)
        grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
        grpc_context.set_trailing_metadata([("reason", "typed")])
        if request.engine_id == "raise":
            raise RuntimeError("a secret")
        return pb.CompleteResponse()

    async def CompleteStream(  # noqa: N802
        self, request: pb.CompleteStreamRequest, grpc_context: Any
    ) -> AsyncIterator[pb.CompleteStreamResponse]:
        if request.engine_id != "nothing":
            yield pb.CompleteStreamResponse()
        grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
        grpc_context.set_trailing_metadata([("reason", "typed")])


def _status(call: Any) -> tuple[str, str, bool]:
    """Code, details, and whether the trailing metadata came."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details(), ("reason", "typed") in (error.trailing_metadata() or ())
    return "OK", "", False


def _listens_anywhere(port: int) -> bool:
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    own = [line[1].split(":")[0] for line in lines if line[3] == LISTENING and int(line[1].split(":")[1], 16) == port]
    return bool(ANYWHERE & set(own))


def _read_in_its_source() -> dict[str, Any]:
    held = {"service_handler_factory", "_override_method_handler", "add_passthrough_service", "generic_rpc_handlers"}
    held.add("rpc_handler._method_handlers = ")
    return {
        "tls": [name for name in gRPCOptions.model_fields if "ssl" in name or "tls" in name],
        "asks_for_certificates": "cert_reqs" in inspect.getsource(http_util),
        "largest_message": constants.RAY_SERVE_GRPC_MAX_MESSAGE_SIZE,
        "not_there": sorted(name for name in held if name not in inspect.getsource(grpc_util.gRPCGenericServer)),
    }


def main() -> None:
    """Starts a cluster, asks, and ends."""
    grpc_port, http_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2, _temp_dir=folder)
        adders = ["deocc.v1.deocclusion_pb2_grpc.add_DeocclusionServiceServicer_to_server"]
        serve.start(
            http_options={"host": "127.0.0.1", "port": http_port},
            grpc_options={"port": grpc_port, "grpc_servicer_functions": adders},
        )
        serve.run(serve.deployment(ray_actor_options={"num_cpus": 0})(Plain).bind(), name="plain")
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            rpc = pb_grpc.DeocclusionServiceStub(channel)
            health = health_pb2_grpc.HealthStub(channel)
            (told,) = rpc.ListEngines(pb.ListEnginesRequest(), timeout=20).engines
            found = {
                **json.loads(told.engine_id),
                **_read_in_its_source(),
                "health": _status(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=20)),
                "returned": _status(lambda: rpc.Complete(pb.CompleteRequest(), timeout=20)),
                "raised": _status(lambda: rpc.Complete(pb.CompleteRequest(engine_id="raise"), timeout=20)),
                "streamed": _status(lambda: list(rpc.CompleteStream(pb.CompleteStreamRequest(), timeout=20))),
                "streamed nothing": _status(
                    lambda: list(rpc.CompleteStream(pb.CompleteStreamRequest(engine_id="nothing"), timeout=20))
                ),
                "routes": httpx.get(f"http://127.0.0.1:{http_port}/-/routes", timeout=20).text,
                "applications": _status(lambda: channel.unary_unary(APPLICATIONS)(b"", timeout=20)),
                "anywhere": _listens_anywhere(grpc_port),
                "died": _status(lambda: rpc.Complete(pb.CompleteRequest(engine_id="die"), timeout=60)),
            }
            rpc.ListEngines(pb.ListEnginesRequest(), timeout=60, wait_for_ready=True)
            with ThreadPoolExecutor(1) as pool:
                slow = pool.submit(_status, lambda: rpc.Complete(pb.CompleteRequest(engine_id="slow"), timeout=20))
                time.sleep(1)
                serve.shutdown()
                found["shut down"] = slow.result()
        ray.shutdown()
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
