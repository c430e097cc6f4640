"""The single-process host: grpc.aio and uvicorn on one event loop, the models in threads beside it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

import grpc
import uvicorn
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from deocc.v1 import deocclusion_pb2_grpc as pb_grpc
from deocc_service import metrics, tracing
from deocc_service.core import Core
from deocc_service.engine import Load, LocalEngine
from deocc_service.gate import Gate
from deocc_service.http import build_http
from deocc_service.servicer import SERVICE, Servicer
from deocc_service.settings import Settings
from deocc_service.tls import credentials, uvicorn_options
from deocc_service.traced import TracedEngine

__all__ = ["LocalHost"]


class LocalHost:
    """Listens at once, loads, then says that it is ready. `async with` it.

    Attributes:
        http_port, grpc_port, metrics_port: those bound, which matters when the settings say 0.
    """

    def __init__(self, settings: Settings, load: Load) -> None:
        self._settings = settings
        self._load = load
        self._core = Core(settings)
        self.http_port = settings.http_port
        self.grpc_port = settings.grpc_port
        self.metrics_port: int | None = None
        self._end_metrics: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        self._tracing = tracing.configure(self._settings.otlp_endpoint)
        self._socket = _listen(self._settings.http_host, self._settings.http_port)
        self.http_port = self._socket.getsockname()[1]
        if self._settings.metrics_port is not None:
            self.metrics_port, self._end_metrics = metrics.expose(
                self._settings.metrics_host, self._settings.metrics_port
            )
        await self._start_grpc()
        self._start_http()
        try:
            engine = await asyncio.to_thread(LocalEngine, self._load, self._settings)
            await asyncio.to_thread(engine.warm_up)
        except BaseException:
            await self._stop_servers(0)
            raise
        self._core.engine = TracedEngine(engine)
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._core.draining = True
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._stop_servers(self._settings.drain_seconds)
        if isinstance(self._core.engine, TracedEngine):
            self._core.engine.close()
        if self._tracing:  # another host of this process may have begun it
            await asyncio.to_thread(tracing.close)

    async def _start_grpc(self) -> None:
        limit = self._settings.max_body
        options = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", -1)]
        # Without this a second server would silently share the port.
        options.append(("grpc.so_reuseport", 0))
        self._grpc = grpc.aio.server(
            options=options, interceptors=(Gate(self._core.guard, self._settings.body_seconds),)
        )
        pb_grpc.add_DeocclusionServiceServicer_to_server(Servicer(self._core), self._grpc)
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection(
            (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), self._grpc
        )
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        address = f"{self._settings.grpc_host}:{self._settings.grpc_port}"
        if self._settings.tls:
            self.grpc_port = self._grpc.add_secure_port(address, credentials(self._settings))
        else:
            self.grpc_port = self._grpc.add_insecure_port(address)
        await self._grpc.start()

    def _start_http(self) -> None:
        config = uvicorn.Config(
            build_http(self._core),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=int(self._settings.drain_seconds),
            **uvicorn_options(self._settings),
        )
        self._http = uvicorn.Server(config)
        # Server.serve would take over the signals, which belong to whoever runs the host.
        self._serving = asyncio.create_task(self._http._serve([self._socket]))

    async def _stop_servers(self, grace: float) -> None:
        self._end_metrics()
        self._http.should_exit = True
        await asyncio.gather(self._grpc.stop(grace), self._serving)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without its protocol asyncio does not take it for TCP and leaves Nagle's algorithm on: 40 ms an answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    return listening
