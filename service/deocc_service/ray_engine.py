"""The engine in Ray Serve replicas: what runs there, and what the edge holds of it."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines.errors import Cancelled, DeoccError, EngineFailure, Overloaded, Unavailable
from deocc_engines.image import image_id_of
from deocc_service import metrics, tracing
from deocc_service.calls import note
from deocc_service.engine import Load, LocalEngine
from deocc_service.scaling import BACKLOG
from deocc_service.settings import Settings
from deocc_service.traced import TracedEngine

if TYPE_CHECKING:
    from deocc_engines.bundle import EngineInfo

__all__ = ["ModelReplica", "RayEngine"]


class ModelReplica:
    """Runs in a Segmenter, Completer or fused replica. Errors are returned as values.

    Serve would log an exception with its traceback and wrap it beyond recognition.
    """

    def __init__(self, load: Load, settings: Settings) -> None:
        metrics.on_ray(replica=True)
        tracing.configure(settings.otlp_endpoint)
        self._engine = LocalEngine(load, settings)
        self._engine.warm_up()
        self._traced = TracedEngine(self._engine)

    async def info(self) -> EngineInfo:
        """The engine that was loaded."""
        return await self._engine.info()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Ray Serve; see `BacklogPolicy`."""
        return {BACKLOG: self._engine.backlog_seconds}

    async def segment(
        self, content: bytes, request: pb.SegmentRequest, left: float | None, trace: tracing.Trace
    ) -> pb.SegmentResponse | DeoccError:
        """See Engine."""
        tracing.follow(trace)
        try:
            return await self._traced.segment(content, request, left)
        except Exception as error:
            return _as_value(error)

    async def complete(
        self,
        content: bytes,
        request: pb.CompleteStreamRequest,
        events: bool,
        left: float | None,
        modal: pb.ModalMask | None,
        trace: tracing.Trace,
    ) -> AsyncGenerator[pb.CompleteStreamResponse | DeoccError, None]:
        """See LocalEngine."""
        tracing.follow(trace)
        try:
            work = self._traced.complete(content, request, events=events, left=left, modal=modal)
            async with aclosing(work) as messages:
                async for message in messages:
                    yield message
        except Exception as error:
            yield _as_value(error)


def _as_value(error: Exception) -> DeoccError:
    if isinstance(error, DeoccError):
        return error
    # For the edge's log, where the request id is; the caller sees a neutral sentence.
    return EngineFailure("".join(traceback.format_exception(error)))


class RayEngine:
    """Handles to the replicas. With one handle for both models a completion is one hop.

    Args:
        segmenter, completer: handles of deployments of ModelReplica; the same one if fused.
    """

    def __init__(self, segmenter: Any, completer: Any, *, fused: bool) -> None:
        self._segmenter = segmenter
        self._completer = completer
        self._fused = fused
        self._info: EngineInfo | None = None

    async def info(self) -> EngineInfo:
        """Asked once; see `ready` for whether it still answers."""
        if self._info is None:
            with _ray_errors():
                self._info = await self._completer.info.remote()
        assert self._info is not None
        return self._info

    async def ready(self) -> bool:
        """True if both models answer within two seconds."""
        try:
            with _ray_errors():
                async with asyncio.timeout(2):
                    await asyncio.gather(self._segmenter.info.remote(), self._completer.info.remote())
        except (DeoccError, TimeoutError):
            return False
        return True

    async def segment(self, content: bytes, request: pb.SegmentRequest, left: float | None) -> pb.SegmentResponse:
        """See Engine."""
        ends = _end(left)
        try:
            return await self._segment(content, request, left)
        except ReplicaLost:
            _begun_again()
            return await self._segment(content, request, _left(ends))

    async def complete(
        self, content: bytes, request: pb.CompleteStreamRequest, *, events: bool, left: float | None
    ) -> AsyncGenerator[pb.CompleteStreamResponse, None]:
        """See Engine. The modal mask travels between the replicas as run lengths.

        When the replica dies the work is begun again on another, once: the seed is known, so the bytes are the same.
        """
        ends = _end(left)
        for chance in (1, 0):
            try:
                async with aclosing(self._complete(content, request, events, _left(ends))) as messages:
                    async for message in messages:
                        yield message
                return
            except ReplicaLost:
                if not chance:
                    raise
                _begun_again()

    async def _segment(self, content: bytes, request: pb.SegmentRequest, left: float | None) -> pb.SegmentResponse:
        with _ray_errors():
            segmenter = self._segmenter.options(session_id=image_id_of(content))
            response = segmenter.segment.remote(content, request, left, tracing.current())
            try:
                result = await response
            except asyncio.CancelledError:
                response.cancel()
                raise
        if isinstance(result, DeoccError):
            raise result
        assert isinstance(result, pb.SegmentResponse)
        return result

    async def _complete(
        self, content: bytes, request: pb.CompleteStreamRequest, events: bool, left: float | None
    ) -> AsyncGenerator[pb.CompleteStreamResponse, None]:
        started = time.monotonic()
        modal: pb.ModalMask | None = None
        if not self._fused and not request.prompt.HasField("mask"):
            asked = pb.SegmentRequest(prompt=request.prompt, mask_encoding=pb.MASK_ENCODING_RLE)
            modal = (await self.segment(content, asked, left)).candidates[0]
        spent = time.monotonic() - started
        remaining = None if left is None else left - spent
        with _ray_errors():
            completer = self._completer.options(stream=True)
            messages = completer.complete.remote(content, request, events, remaining, modal, tracing.current())
            try:
                async for message in messages:
                    if isinstance(message, DeoccError):
                        raise message
                    if modal is not None and message.HasField("result"):
                        message.result.timings.seconds["segment"] = spent
                    yield message
            finally:
                messages.cancel()


class ReplicaLost(Unavailable):
    """The process that did the work is gone."""


def _begun_again() -> None:
    note(begun_again=True)
    metrics.RETRIES.add()


def _end(left: float | None) -> float | None:
    return None if left is None else time.monotonic() + left


def _left(end: float | None) -> float | None:
    return None if end is None else end - time.monotonic()


@contextmanager
def _ray_errors() -> Iterator[None]:
    """Ray's errors as ours."""
    from ray.exceptions import RayActorError, RayError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

    try:
        yield
    except DeoccError:
        raise
    except RequestCancelledError as error:
        raise Cancelled("the request was cancelled") from error
    except BackPressureError as error:
        raise Overloaded("no room now; try again later") from error
    except (RayActorError, DeploymentUnavailableError) as error:
        raise ReplicaLost("a model was lost and is being started again") from error
    except RayError as error:
        raise EngineFailure("a replica failed") from error
