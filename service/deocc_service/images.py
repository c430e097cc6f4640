"""Uploaded images, kept by content for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from deocc_engines.errors import NotFound
from deocc_engines.image import image_id_of

__all__ = ["ImageStore"]


class ImageStore:
    """Encoded images by their content address, in memory.

    Least recently used first out when the budget is spent; every use starts the time to live anew.
    Used from one event loop; not thread-safe.

    Args:
        ttl: seconds.
        max_bytes: of all images together; one image may exceed it, alone.
        clock: seconds, monotonic.
    """

    def __init__(self, ttl: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.ttl = ttl
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # content, time of expiry; oldest first

    def put(self, content: bytes) -> str:
        """Keeps an encoded image and returns its id."""
        image_id = image_id_of(content)
        self._drop(image_id)
        self._kept[image_id] = (content, self._clock() + self.ttl)
        self._bytes += len(content)
        self._evict()
        return image_id

    def get(self, image_id: str, *, field: str = "image.image_id") -> bytes:
        """The encoded image.

        Raises:
            NotFound: never uploaded, expired or evicted.
        """
        self._evict()
        if image_id not in self._kept:
            raise NotFound("no such image; upload it again", field=field)
        content, _ = self._kept[image_id]
        self._kept[image_id] = (content, self._clock() + self.ttl)
        self._kept.move_to_end(image_id)
        return content

    def _evict(self) -> None:
        now = self._clock()
        while self._kept:
            oldest, (_, expiry) = next(iter(self._kept.items()))
            if expiry > now and (self._bytes <= self._max_bytes or len(self._kept) == 1):
                return
            self._drop(oldest)

    def _drop(self, image_id: str) -> None:
        content, _ = self._kept.pop(image_id, (b"", 0.0))
        self._bytes -= len(content)
