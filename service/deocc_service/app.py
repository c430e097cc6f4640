"""The Ray Serve application: Edge, Segmenter and Completer, or Edge and both models in one replica."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from ray import serve

from deocc.v1 import deocclusion_pb2 as pb
from deocc_service.calls import configure_log
from deocc_service.core import Core
from deocc_service.engine import Load
from deocc_service.http import build_http
from deocc_service.ray_engine import ModelReplica, RayEngine
from deocc_service.servicer import Servicer
from deocc_service.settings import Settings
from deocc_service.warmup import warm_up

__all__ = ["Edge", "bind"]

# The bound that counts is the queue of LocalEngine, which answers with a typed error; Serve's is out of the way.
ONGOING = 10_000


class Edge(Servicer):
    """FastAPI and gRPC in one replica, with the uploaded images."""

    def __init__(self, settings: Settings, segmenter: Any, completer: Any) -> None:
        configure_log()
        engine = RayEngine(segmenter, completer, fused=settings.fused)
        super().__init__(Core(settings, engine))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_http(self._core, name_requests=False)

    async def CompleteStream(  # noqa: N802
        self, request: pb.CompleteStreamRequest, grpc_context: Any
    ) -> AsyncIterator[pb.CompleteStreamResponse]:
        """As the servicer's, and one empty message after an error."""
        async for message in super().CompleteStream(request, grpc_context):
            yield message
        if grpc_context.code():
            # Only a message carries the context, with status and details, to the proxy; the hook there drops it.
            yield pb.CompleteStreamResponse()

    async def ready(self) -> bool:
        """True if a request would be answered."""
        return await self._core.ready()

    async def warm_up(self) -> None:
        """One small request through all replicas."""
        await warm_up(self._core)

    async def drain(self) -> None:
        """Says from now on that it is not ready; requests are still answered."""
        self._core.draining = True


def bind(settings: Settings, load: Load) -> serve.Application:
    """The application, to be run with `serve.run`."""
    model_options = {"max_ongoing_requests": ONGOING, "graceful_shutdown_timeout_s": settings.drain_seconds}

    def models(name: str) -> serve.Application:
        # No CPUs are reserved: what runs at once is bounded by slots, and a small machine must hold all replicas.
        options = {**model_options, "ray_actor_options": {"num_cpus": 0}}
        return serve.deployment(name=name, **options)(ModelReplica).bind(load, settings)

    segmenter = models("Deoccluder" if settings.fused else "Segmenter")
    completer = segmenter if settings.fused else models("Completer")
    edge = serve.deployment(name="Edge", **model_options, ray_actor_options={"num_cpus": 0})(serve.ingress()(Edge))
    return edge.bind(settings, segmenter, completer)
