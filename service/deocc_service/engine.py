"""The engines as the service sees them: encoded bytes and wire messages in, wire messages out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines.completion import Completion, CompletionOptions, Event, ModalMask, Progress, Stage
from deocc_engines.errors import Cancelled, DeadlineExceeded
from deocc_engines.image import Photo
from deocc_service.photos import PhotoCache
from deocc_service.settings import Settings
from deocc_service.slots import Slots
from deocc_service.wire import (
    ResultWriter,
    modal_from_wire,
    modal_to_wire,
    options_from_wire,
    prompt_from_wire,
    size_to_wire,
)

if TYPE_CHECKING:
    from deocc_engines.bundle import EngineInfo
    from deocc_engines.deoccluder import Deoccluder

__all__ = ["Engine", "Load", "LocalEngine", "bundle_loader"]

Load = Callable[[], "tuple[Deoccluder, EngineInfo]"]


class Engine(Protocol):
    """One engine, in this process or in Ray replicas. `left` is in seconds from now, None for ever."""

    async def info(self) -> EngineInfo:
        """What is loaded; may be remembered."""
        ...

    async def ready(self) -> bool:
        """True if the models answer."""
        ...

    async def segment(self, content: bytes, request: pb.SegmentRequest, left: float | None) -> pb.SegmentResponse:
        """Candidates, best first. `request.image` is not looked at."""
        ...

    def complete(
        self, content: bytes, request: pb.CompleteStreamRequest, *, events: bool, left: float | None
    ) -> AsyncGenerator[pb.CompleteStreamResponse, None]:
        """The result as the last message; before it, progress if `events`. Closing the iterator stops the work."""
        ...


class Stop:
    """Asked by the engine before every step; raises to end the work."""

    def __init__(self, left: float | None) -> None:
        self._gone = threading.Event()
        self._end = None if left is None else time.monotonic() + left

    def cancel(self) -> None:
        """The caller has left."""
        self._gone.set()

    def left(self) -> float | None:
        """Seconds."""
        return None if self._end is None else self._end - time.monotonic()

    def __call__(self) -> None:
        if self._gone.is_set():
            raise Cancelled("the caller went away")
        if self._end is not None and time.monotonic() >= self._end:
            raise DeadlineExceeded("the time that the caller gave is over")


class LocalEngine:
    """An engine in this process: threads for the work, the event loop for the messages."""

    def __init__(self, load: Load, settings: Settings) -> None:
        deoccluder, self._info = load()
        self._deoccluder = replace(deoccluder, limits=settings.limits)
        self._limits = settings.limits
        self._photos = PhotoCache(settings.limits)
        self._completions = Slots("complete", settings.slots, settings.queue)
        # Their own threads: a click does not wait behind seconds of diffusion.
        self._segmentations = Slots("segment", settings.segment_slots, settings.segment_queue)

    @property
    def running(self) -> int:
        """Completions at work."""
        return self._completions.running

    async def info(self) -> EngineInfo:
        """The engine that was loaded."""
        return self._info

    async def ready(self) -> bool:
        """Always: the constructor loads."""
        return True

    async def segment(self, content: bytes, request: pb.SegmentRequest, left: float | None) -> pb.SegmentResponse:
        """See Engine."""
        stop = Stop(left)
        future = await self._segmentations.start(lambda: self._segment(content, request, stop), left)
        try:
            return await asyncio.wait_for(asyncio.shield(future), stop.left())
        except TimeoutError:
            raise DeadlineExceeded("the time that the caller gave is over") from None
        finally:
            stop.cancel()

    async def complete(
        self,
        content: bytes,
        request: pb.CompleteStreamRequest,
        *,
        events: bool,
        left: float | None,
        modal: pb.ModalMask | None = None,
    ) -> AsyncGenerator[pb.CompleteStreamResponse, None]:
        """See Engine.

        Args:
            modal: what another replica segmented; None: the prompt says it.
        """
        loop = asyncio.get_running_loop()
        messages: asyncio.Queue[pb.CompleteStreamResponse | None] = asyncio.Queue()
        stop = Stop(left)
        writer = ResultWriter(request.options)

        def on_event(event: Event) -> None:
            if events:
                loop.call_soon_threadsafe(messages.put_nowait, writer.event(event))

        def work() -> pb.CompleteResponse:
            return self._complete(content, request, modal, writer, on_event, stop)

        future = await self._completions.start(work, left)
        future.add_done_callback(lambda _: messages.put_nowait(None))
        try:
            while (message := await messages.get()) is not None:
                yield message
            yield pb.CompleteStreamResponse(result=future.result())
        finally:
            stop.cancel()

    def close(self) -> None:
        """Accepts no work any more."""
        self._completions.close()
        self._segmentations.close()

    def _segment(self, content: bytes, request: pb.SegmentRequest, stop: Stop) -> pb.SegmentResponse:
        stop()
        started = time.perf_counter()
        photo = self._photos.decode(content)
        decoded = time.perf_counter()
        stop()
        found = self._deoccluder.segment(photo, prompt_from_wire(request.prompt, photo.width, photo.height))
        segmented = time.perf_counter()
        candidates = [modal_to_wire(candidate, request.mask_encoding) for candidate in found]
        seconds = {"decode": decoded - started, "segment": segmented - decoded}
        seconds["encode"] = time.perf_counter() - segmented
        return pb.SegmentResponse(
            candidates=candidates,
            image_id=photo.image_id,
            size=size_to_wire(photo.width, photo.height),
            engine_id=self._info.engine_id,
            timings=pb.Timings(seconds=seconds),
        )

    def _complete(
        self,
        content: bytes,
        request: pb.CompleteStreamRequest,
        modal: pb.ModalMask | None,
        writer: ResultWriter,
        on_event: Callable[[Event], None],
        stop: Stop,
    ) -> pb.CompleteResponse:
        stop()
        started = time.perf_counter()
        options = options_from_wire(request, self._limits)
        photo = self._photos.decode(content)
        decoded = time.perf_counter()
        if modal is None:
            prompt = prompt_from_wire(request.prompt, photo.width, photo.height)
            completion = self._deoccluder.complete(photo, prompt, options, on_event=on_event, stop=stop)
        else:
            given = modal_from_wire(modal, photo.width, photo.height)
            completion = self._complete_modal(photo, given, options, on_event, stop)
        completed = time.perf_counter()
        result = writer.result(completion)
        result.image_id = photo.image_id
        result.size.CopyFrom(size_to_wire(photo.width, photo.height))
        result.engine_id = self._info.engine_id
        result.timings.seconds["decode"] = decoded - started
        result.timings.seconds["encode"] = time.perf_counter() - completed
        return result

    def _complete_modal(
        self,
        photo: Photo,
        modal: ModalMask,
        options: CompletionOptions,
        on_event: Callable[[Event], None],
        stop: Stop,
    ) -> Completion:
        on_event(modal)
        on_event(Progress(Stage.SEGMENT, 0, 1, 1, 0.0))
        return self._deoccluder.completer.complete(photo.pixels, modal, options, on_event=on_event, stop=stop)


def bundle_loader(settings: Settings) -> Load:
    """A picklable loader of the bundle that the settings name."""
    return partial(_load_bundle, settings.engine, settings.slots)


def _load_bundle(engine: str | None, slots: int) -> tuple[Deoccluder, EngineInfo]:
    from deocc_engines.loading import load_deoccluder

    return load_deoccluder(engine, streams=slots)
