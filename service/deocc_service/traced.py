"""An engine of this process, seen in the trace of the request that asks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines.completion import StageDone
from deocc_service.engine import LocalEngine
from deocc_service.tracing import Span

if TYPE_CHECKING:
    from deocc_engines.bundle import EngineInfo

__all__ = ["TracedEngine"]


class TracedEngine:
    """As the engine that it holds, with spans for its work, its stages, and those of each sample."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    async def info(self) -> EngineInfo:
        """See Engine."""
        return await self._engine.info()

    async def ready(self) -> bool:
        """See Engine."""
        return await self._engine.ready()

    async def segment(self, content: bytes, request: pb.SegmentRequest, left: float | None) -> pb.SegmentResponse:
        """See Engine."""
        with Span("engine.segment") as span:
            response = await self._engine.segment(content, request, left)
            span.stages(response.timings.seconds)
        return response

    async def complete(
        self,
        content: bytes,
        request: pb.CompleteStreamRequest,
        *,
        events: bool,
        left: float | None,
        modal: pb.ModalMask | None = None,
    ) -> AsyncGenerator[pb.CompleteStreamResponse, None]:
        """See LocalEngine."""
        done: list[StageDone] = []
        work = self._engine.complete(content, request, events=events, left=left, modal=modal, on_stage=done.append)
        with Span("engine.complete") as span:
            async with aclosing(work) as messages:
                async for message in messages:
                    if message.HasField("result"):
                        span.stages(message.result.timings.seconds, done)
                    yield message

    def close(self) -> None:
        """See LocalEngine."""
        self._engine.close()
