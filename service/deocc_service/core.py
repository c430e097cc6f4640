"""The service itself: what both protocols and both hosts call."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines.completion import preset_of
from deocc_engines.errors import DeadlineExceeded, InvalidInput, NotFound, TooLarge, Unavailable
from deocc_engines.image import decode_image
from deocc_service.auth import Guard
from deocc_service.calls import caller, coming, note, under_licence
from deocc_service.engine import Engine
from deocc_service.images import ImageStore
from deocc_service.settings import Settings
from deocc_service.wire import check_enums, engine_to_wire, options_from_wire, size_to_wire

__all__ = ["Core"]

SEEDS = 2**32
Completing = pb.CompleteRequest | pb.CompleteStreamRequest  # taken as they come: each copy of an image is a millisecond


class Core:
    """Resolves images and engines, fills in defaults, and asks the engine. Knows no transport."""

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self.settings = settings
        self.engine = engine  # None: still loading
        self.draining = False
        self.guard = Guard.of(settings.api_keys_file)
        self._images = ImageStore(settings.image_ttl, settings.image_bytes, settings.image_dir)

    async def ready(self) -> bool:
        """True when a request would be answered."""
        return self.engine is not None and not self.draining and await self.engine.ready()

    async def upload(self, chunks: AsyncIterable[bytes]) -> pb.UploadImageResponse:
        """Stores an image that arrives in parts; no more is read than is accepted."""
        limits = self.settings.limits
        content = bytearray()
        async with coming(self.settings.body_seconds):
            async for chunk in chunks:
                content += chunk
                if len(content) > limits.max_bytes:
                    raise TooLarge(f"an image may have {limits.max_bytes} bytes at most", field="content")
        encoded = bytes(content)
        photo = await asyncio.to_thread(decode_image, encoded, limits, field="content")
        return pb.UploadImageResponse(
            image_id=await asyncio.to_thread(self._images.put, encoded),
            size=size_to_wire(photo.width, photo.height),
            expires_in_seconds=int(self._images.ttl),
        )

    async def segment(self, request: pb.SegmentRequest, left: float | None = None) -> pb.SegmentResponse:
        """Candidate modal masks, best first."""
        engine = await self._engine(request.engine_id)
        left = self._time(left)
        check_enums(request.mask_encoding)
        content = await self._content(request.image)
        bare = pb.SegmentRequest(prompt=request.prompt, mask_encoding=request.mask_encoding)
        response = await engine.segment(content, bare, left)
        await self._keep(request.image, response.image_id, content)
        _note_seconds(response.timings)
        return response

    async def complete(self, request: Completing, left: float | None = None) -> pb.CompleteResponse:
        """The whole object."""
        async with aclosing(self._complete(request, events=False, left=left)) as messages:
            async for message in messages:
                if message.HasField("result"):
                    return message.result
        raise Unavailable("the engine ended without a result")

    def complete_stream(
        self, request: pb.CompleteStreamRequest, left: float | None = None
    ) -> AsyncGenerator[pb.CompleteStreamResponse, None]:
        """The same with progress; the last message is the result."""
        return self._complete(request, events=True, left=left)

    async def list_engines(self) -> pb.ListEnginesResponse:
        """What runs here."""
        engine = await self._engine("")
        return pb.ListEnginesResponse(
            engines=[engine_to_wire(await engine.info(), self.settings.limits, is_default=True)]
        )

    async def _complete(
        self, request: Completing, *, events: bool, left: float | None
    ) -> AsyncGenerator[pb.CompleteStreamResponse, None]:
        engine = await self._engine(request.engine_id)
        left = self._time(left)
        bare = pb.CompleteStreamRequest(prompt=request.prompt, options=request.options)
        if events and isinstance(request, pb.CompleteStreamRequest):
            bare.preview_every = request.preview_every
        if not bare.options.HasField("seed"):
            bare.options.seed = secrets.randbelow(SEEDS)
        note(seed=bare.options.seed)
        options = options_from_wire(bare, self.settings.limits)  # refused here, before anything is moved or waits
        self.guard.check_priority(caller.get(), options.priority)
        preset_of((await engine.info()).presets, bare.options.preset)
        content = await self._content(request.image)
        async with aclosing(engine.complete(content, bare, events=events, left=left)) as messages:
            async for message in messages:
                if message.HasField("result"):
                    await self._keep(request.image, message.result.image_id, content)
                    _note_seconds(message.result.timings)
                yield message

    def _time(self, left: float | None) -> float | None:
        """Seconds for the work; None for ever."""
        if left is not None and left <= 0:
            raise DeadlineExceeded("the time was over before the work could start")
        bounds = [seconds for seconds in (left, self.settings.request_seconds) if seconds is not None]
        return min(bounds, default=None)

    async def _engine(self, engine_id: str) -> Engine:
        if self.engine is None:
            raise Unavailable("the models are still loading")
        info = await self.engine.info()
        if engine_id not in ("", info.engine_id, info.name):
            raise NotFound("no such engine; ListEngines names those that there are", field="engine_id")
        note(engine=info.engine_id)
        under_licence(info.licence, commercial_use=info.commercial_use)
        return self.engine

    async def _content(self, image: pb.ImageSource) -> bytes:
        match image.WhichOneof("source"):
            case "image_id":
                return await asyncio.to_thread(self._images.get, image.image_id)
            case "content":
                return image.content
        raise InvalidInput("give an image: its content, or the image_id of an upload", field="image")

    async def _keep(self, image: pb.ImageSource, image_id: str, content: bytes) -> None:
        # The answer names the image by its id, so the id must work in the next call.
        if image.WhichOneof("source") == "content":
            await asyncio.to_thread(self._images.note, image_id, content)


def _note_seconds(timings: pb.Timings) -> None:
    note(seconds={stage: round(value, 4) for stage, value in timings.seconds.items()})
