"""Decoded images kept by content: a second click neither decodes nor embeds again."""

from __future__ import annotations

import threading
from collections import OrderedDict

from deocc_engines.image import Photo, decode_image, image_id_of
from deocc_engines.limits import Limits

__all__ = ["PhotoCache"]


class PhotoCache:
    """Least recently used first out, under a budget of bytes. Thread-safe; nobody writes to the pixels."""

    def __init__(self, limits: Limits, max_bytes: int = 128 * 1024 * 1024) -> None:
        self._limits = limits
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, Photo] = OrderedDict()
        self._lock = threading.Lock()

    def decode(self, content: bytes) -> Photo:
        """As `decode_image`, whose errors pass through."""
        image_id = image_id_of(content)
        with self._lock:
            if image_id in self._kept:
                self._kept.move_to_end(image_id)
                return self._kept[image_id]
        # Outside the lock: two at once decode twice, and nobody waits.
        photo = decode_image(content, self._limits, image_id=image_id)
        with self._lock:
            if photo.pixels.nbytes <= self._max_bytes and image_id not in self._kept:
                self._kept[image_id] = photo
                self._bytes += photo.pixels.nbytes
            while self._bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.pixels.nbytes
        return photo
