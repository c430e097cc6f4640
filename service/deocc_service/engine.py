"""The engines as the service sees them: encoded bytes and wire messages in, wire messages out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines.completion import CompletionOptions, Event, Progress, Stage, StageDone
from deocc_engines.errors import DeadlineExceeded
from deocc_engines.image import encode_png
from deocc_engines.prompt import Point, Prompt
from deocc_service import metrics
from deocc_service.admission import Admission, Place
from deocc_service.memory import give_back
from deocc_service.photos import PhotoCache
from deocc_service.settings import Settings
from deocc_service.slots import Slots
from deocc_service.stop import Stop
from deocc_service.wire import (
    ResultWriter,
    modal_from_wire,
    modal_to_wire,
    options_from_wire,
    prompt_from_wire,
    size_to_wire,
)

if TYPE_CHECKING:
    from deocc_engines.batcher import StepBatcher
    from deocc_engines.bundle import EngineInfo
    from deocc_engines.deoccluder import Deoccluder

__all__ = ["Engine", "Load", "LocalEngine", "bundle_loader"]

Load = Callable[[], "tuple[Deoccluder, EngineInfo]"]

HOUSEKEEPING_SECONDS = 5.0


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


class LocalEngine:
    """An engine in this process: threads for the work, the event loop for the messages."""

    def __init__(self, load: Load, settings: Settings) -> None:
        deoccluder, self._info = load()
        self._deoccluder = replace(deoccluder, limits=settings.limits)
        self._limits = settings.limits
        self._photos = PhotoCache(settings.limits)
        batcher = self._deoccluder.completer.batcher
        self._admission = Admission(batcher, settings.queue, settings.queue_bytes)
        # A completion holds a thread from its decoding to its encoding; the batcher decides whose step comes next.
        self._completions = Slots("complete", settings.queue, 0)
        self._preparing = threading.Semaphore(settings.slots)  # decoding and segmenting, which fill a core each
        # Their own threads: a click does not wait behind seconds of diffusion.
        self._segmentations = Slots("segment", settings.segment_slots, settings.segment_queue)
        self._closed = threading.Event()
        self._measure(batcher)

    def _measure(self, batcher: StepBatcher) -> None:
        def on_step(seconds: float, rows: int) -> None:
            metrics.STEP_SECONDS.observe(seconds)
            metrics.BATCH_ROWS.observe(rows)
            metrics.BACKLOG_SECONDS.set(self._admission.backlog_seconds)

        def on_lookup(there: bool) -> None:
            (metrics.CACHE_HITS if there else metrics.CACHE_MISSES).add()

        batcher.on_step = on_step
        self._deoccluder.embeddings.on_lookup = on_lookup
        threading.Thread(target=self._keep_house, name="housekeeping", daemon=True).start()

    def _keep_house(self) -> None:
        # Ray forgets a gauge that is not set for a while.
        self._gauge()
        while not self._closed.wait(HOUSEKEEPING_SECONDS):
            give_back()
            self._gauge()

    def _gauge(self) -> None:
        metrics.QUEUE_DEPTH.set(self._admission.jobs, kind="complete")
        metrics.QUEUE_DEPTH.set(self._segmentations.jobs, kind="segment")
        metrics.BACKLOG_SECONDS.set(self._admission.backlog_seconds)
        metrics.CACHE_BYTES.set(self._deoccluder.embeddings.nbytes)
        runtime = dict(self._info.runtimes).get("denoise", "unknown")
        metrics.ENGINE_INFO.set(1, engine=self._info.engine_id, runtime=runtime)
        metrics.measure_memory()

    def warm_up(self) -> None:
        """One small request through both models, so that the first caller does not pay for what is lazy."""
        pixels = np.full((64, 64, 3), 255, np.uint8)
        pixels[16:48, 16:48] = (200, 40, 40)
        photo = self._photos.decode(encode_png(pixels))
        self._deoccluder.complete(photo, Prompt((Point(32, 32),)), CompletionOptions(steps=1))

    @property
    def backlog_seconds(self) -> float:
        """What all accepted work still takes, as measured lately."""
        return self._admission.backlog_seconds + self._segmentations.backlog_seconds

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
            raise DeadlineExceeded("the time for this request is over") from None
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
        on_stage: Callable[[StageDone], None] = lambda _: None,
    ) -> AsyncGenerator[pb.CompleteStreamResponse, None]:
        """See Engine.

        Args:
            modal: what another replica segmented; None: the prompt says it.
            on_stage: told of every stage that a sample is through, from another thread.
        """
        loop = asyncio.get_running_loop()
        messages: asyncio.Queue[pb.CompleteStreamResponse | None] = asyncio.Queue()
        stop = Stop(left)
        writer = ResultWriter(request.options)

        def on_event(event: Event) -> None:
            if isinstance(event, StageDone):
                on_stage(event)
            elif events:
                loop.call_soon_threadsafe(messages.put_nowait, writer.event(event))

        def work() -> pb.CompleteResponse:
            return self._complete(content, request, options, modal, writer, on_event, stop, place)

        options = options_from_wire(request, self._limits)
        place = self._admission.admit(
            self._deoccluder.completer.cost(options),
            len(content),
            left,
            weight=options.priority.weight,
        )
        try:
            future = await self._completions.start(work, left)
        except BaseException:
            place.leave()
            raise

        # Which may be a step after its caller went away.
        def ended(_: object) -> None:
            place.leave()
            self._gauge()
            messages.put_nowait(None)

        future.add_done_callback(ended)
        try:
            while (message := await messages.get()) is not None:
                yield message
            yield pb.CompleteStreamResponse(result=future.result())
        finally:
            stop.cancel()

    def close(self) -> None:
        """Accepts no work any more."""
        self._closed.set()
        self._deoccluder.completer.batcher.close()
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
        self._staged(seconds)
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
        options: CompletionOptions,
        modal: pb.ModalMask | None,
        writer: ResultWriter,
        on_event: Callable[[Event], None],
        stop: Stop,
        place: Place,
    ) -> pb.CompleteResponse:
        waiting = time.perf_counter()
        with self._preparing:
            stop()
            started = time.perf_counter()
            photo = self._photos.decode(content)
            decoded = time.perf_counter()
            stop()
            if modal is None:
                prompt = prompt_from_wire(request.prompt, photo.width, photo.height)
                seen = self._deoccluder.modal_mask(photo, prompt)
            else:  # another replica has segmented
                seen = modal_from_wire(modal, photo.width, photo.height)
            segmented = time.perf_counter()
        on_event(seen)
        on_event(Progress(Stage.SEGMENT, 0, 1, 1, 0.0))
        place.begin()
        completion = self._deoccluder.completer.complete(photo.pixels, seen, options, on_event=on_event, stop=stop)
        completed = time.perf_counter()
        result = writer.result(completion)
        result.image_id = photo.image_id
        result.size.CopyFrom(size_to_wire(photo.width, photo.height))
        result.engine_id = self._info.engine_id
        seconds = {"wait": started - waiting, "decode": decoded - started}
        if modal is None:
            seconds["segment"] = segmented - decoded
        result.timings.seconds.update({**seconds, "encode": time.perf_counter() - completed})
        self._staged(result.timings.seconds)
        return result

    def _staged(self, seconds: Mapping[str, float]) -> None:
        for stage, value in seconds.items():
            metrics.STAGE_SECONDS.observe(value, stage=stage)
        self._gauge()


def bundle_loader(settings: Settings) -> Load:
    """A picklable loader of the bundle that the settings name."""
    return partial(_load_bundle, settings.engine, settings.slots)


def _load_bundle(engine: str | None, slots: int) -> tuple[Deoccluder, EngineInfo]:
    from deocc_engines.loading import load_deoccluder

    return load_deoccluder(engine, streams=slots)
