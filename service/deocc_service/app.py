"""The Ray Serve application: Edge, Segmenter and Completer, or Edge and both models in one replica."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

from deocc.v1 import deocclusion_pb2 as pb
from deocc_service import metrics, tracing
from deocc_service.calls import configure_log
from deocc_service.core import Core
from deocc_service.engine import Load, bundle_loader
from deocc_service.http import build_http
from deocc_service.ray_engine import ModelReplica, RayEngine
from deocc_service.scaling import BacklogPolicy
from deocc_service.servicer import Servicer
from deocc_service.settings import Replicas, Settings

__all__ = ["Edge", "application", "bind"]

# The bound that counts is the queue of LocalEngine, which answers with a typed error; Serve's is out of the way.
ONGOING = 10_000


class Edge(Servicer):
    """FastAPI and gRPC in one replica, with the uploaded images."""

    def __init__(self, settings: Settings, segmenter: Any, completer: Any) -> None:
        configure_log(settings.log_format)
        metrics.on_ray(replica=True)
        tracing.configure(settings.otlp_endpoint)
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
            # Messages carry the context, status and details, to the proxy: there must be one, which the hook drops.
            yield pb.CompleteStreamResponse()

    async def ready(self) -> bool:
        """True if a request would be answered."""
        return await self._core.ready()

    async def drain(self) -> None:
        """Says from now on that it is not ready; requests are still answered."""
        self._core.draining = True


def bind(settings: Settings, load: Load) -> serve.Application:
    """The application, to be run with `serve.run`."""
    model_options = {"max_ongoing_requests": ONGOING, "graceful_shutdown_timeout_s": settings.drain_seconds}

    def models(name: str, replicas: Replicas) -> serve.Application:
        actor = {"num_cpus": replicas.cpus, "num_gpus": replicas.gpus}
        options = {**model_options, **_scaled(replicas), "ray_actor_options": actor}
        if name == "Segmenter":  # clicks on one image go where its embedding is
            options["request_router_config"] = RequestRouterConfig(request_router_class=ConsistentHashRouter)
        return serve.deployment(name=name, **options)(ModelReplica).bind(load, settings)

    segmenter = models(*(("Deoccluder", settings.completers) if settings.fused else ("Segmenter", settings.segmenters)))
    completer = segmenter if settings.fused else models("Completer", settings.completers)
    edge_options = {**model_options, "num_replicas": settings.edges, "ray_actor_options": {"num_cpus": 0}}
    edge = serve.deployment(name="Edge", **edge_options)(serve.ingress()(Edge))
    return edge.bind(settings, segmenter, completer)


def application(_: dict[str, Any]) -> serve.Application:
    """What a configuration of Serve imports; the settings are those of the environment."""
    settings = Settings.read()
    return bind(settings, bundle_loader(settings))


def _scaled(replicas: Replicas) -> dict[str, Any]:
    if replicas.max == replicas.min:
        return {"num_replicas": replicas.min}
    policy = AutoscalingPolicy(policy_function=BacklogPolicy, policy_kwargs={"target": replicas.backlog_seconds})
    scaling = AutoscalingConfig(
        min_replicas=replicas.min,
        max_replicas=replicas.max,
        initial_replicas=max(replicas.min, 1),
        policy=policy,
        metrics_interval_s=2.0,
        look_back_period_s=10.0,
    )
    return {"autoscaling_config": scaling}
