"""Wire messages to HTTP responses: JSON, protobuf, PNG or server-sent events, as the caller accepts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines.errors import Cancelled
from deocc_service.calls import Call
from deocc_service.errors import public, to_problem

__all__ = ["JSON", "PNG", "PROTOBUF", "SSE", "EventReply", "binary_reply", "json_reply", "mask_reply", "negotiate"]
__all__ += ["png_reply", "until_disconnect"]

T = TypeVar("T")
Event = pb.CompleteStreamResponse

JSON, PNG, SSE = "application/json", "image/png", "text/event-stream"
PROTOBUF = "application/x-protobuf"


def negotiate(accept: str | None, offered: tuple[str, ...]) -> str:
    """The offer that the caller likes best; the first one in doubt, as RFC 9110 allows."""
    best, best_quality = offered[0], 0.0
    for offer in offered:
        quality = _quality(offer, accept or "*/*")
        if quality > best_quality:
            best, best_quality = offer, quality
    return best


def _quality(offer: str, accept: str) -> float:
    """That of the most specific range which covers the offer."""
    found, found_rank = 0.0, -1
    for part in accept.lower().split(","):
        media, *parameters = [piece.strip() for piece in part.split(";")]
        ranks = (media == "*/*", media == offer.split("/")[0] + "/*", media == offer)
        rank = max((index for index, hit in enumerate(ranks) if hit), default=-1)
        if rank > found_rank:
            quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
            found, found_rank = _number(quality), rank
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def to_json(message: Message) -> str:
    """Proto JSON in snake case, on one line; what is unset but has a default is written out."""
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
    )


def json_reply(message: Message, status: int = 200) -> Response:
    """The message as proto JSON."""
    return Response(to_json(message), status, media_type=JSON)


def binary_reply(message: Message) -> Response:
    """The message itself: pictures as they are, not in base64."""
    return Response(message.SerializeToString(), media_type=PROTOBUF)


def png_reply(result: pb.CompleteResponse) -> Response:
    """The best sample alone; what else is known goes into headers."""
    best = result.samples[0]
    headers = {
        "X-Deocc-Seed": str(best.seed),
        "X-Deocc-Score": f"{best.score:.6f}",
        "X-Deocc-Engine": result.engine_id,
        "X-Deocc-Already-Whole": str(result.already_whole).lower(),
        "X-Image-Id": result.image_id,
    }
    return Response(best.rgba_png, headers=headers, media_type=PNG)


def mask_reply(result: pb.SegmentResponse) -> Response:
    """The best candidate's mask alone."""
    best = result.candidates[0]
    headers = {
        "X-Deocc-Score": f"{best.score:.6f}",
        "X-Deocc-Engine": result.engine_id,
        "X-Image-Id": result.image_id,
    }
    return Response(best.mask.png, headers=headers, media_type=PNG)


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller leaves. The body must have been read.

    Raises:
        Cancelled: the caller left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Cancelled("the caller went away")
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventReply(Response):
    """Server-sent events, named as in the contract's oneof. The work stops when the caller leaves.

    Not sse-starlette's: importing that replaces uvicorn's signal handling, and it cuts streams short at shutdown.

    Args:
        first: already fetched, so that an error before it has a status of its own.
    """

    media_type = SSE

    def __init__(self, first: Event, rest: AsyncGenerator[Event, None], call: Call) -> None:
        self._first = first
        self._rest = rest
        self._call = call
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        try:
            await until_disconnect(receive, self._send_all(send))
        except Cancelled as error:
            self._call.notes["error"] = error.reason
        finally:
            await self._rest.aclose()

    async def _send_all(self, send: Send) -> None:
        try:
            await _send_event(send, _name(self._first), _data(self._first))
            async for message in self._rest:
                await _send_event(send, _name(message), _data(message))
        except Exception as error:  # the status line is out: an error can only be an event
            shown = public(error)
            self._call.failed(error)
            await _send_event(send, "error", json.dumps(to_problem(shown, self._call.request_id)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_event(send: Send, name: str, data: str) -> None:
    body = f"event: {name}\ndata: {data}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _name(message: Event) -> str:
    name = message.WhichOneof("event")
    assert name is not None
    return name


def _data(message: Event) -> str:
    return to_json(getattr(message, _name(message)))
