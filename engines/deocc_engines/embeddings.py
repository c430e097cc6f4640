"""Image embeddings kept by content, so that a second click decodes only."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from deocc_engines.segmenter import Embedding

__all__ = ["EmbeddingCache"]


class EmbeddingCache:
    """Least recently used first out, under a budget of bytes. Concurrent misses of one image compute once.

    Attributes:
        nbytes: of all that is kept.
        on_lookup: told of every lookup whether the embedding was there, or about to be.
    """

    def __init__(self, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self.nbytes = 0
        self.on_lookup: Callable[[bool], None] | None = None
        self._kept: OrderedDict[str, Embedding] = OrderedDict()
        self._pending: dict[str, Future[Embedding]] = {}
        self._lock = threading.Lock()

    def get(self, image_id: str, compute: Callable[[], Embedding]) -> Embedding:
        """The embedding of an image, computed if need be; the errors of `compute` pass through."""
        with self._lock:
            kept = self._kept.get(image_id)
            if kept is not None:
                self._kept.move_to_end(image_id)
            pending = self._pending.get(image_id)
            if kept is None and pending is None:
                mine = self._pending[image_id] = Future()
        if self.on_lookup is not None:
            self.on_lookup(kept is not None or pending is not None)
        if kept is not None:
            return kept
        if pending is not None:
            return pending.result()
        try:
            embedding = compute()
        except BaseException as error:
            with self._lock:
                del self._pending[image_id]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._pending[image_id]
            self._keep(image_id, embedding)
        mine.set_result(embedding)
        return embedding

    def _keep(self, image_id: str, embedding: Embedding) -> None:
        self._kept[image_id] = embedding
        self.nbytes += embedding.nbytes
        while self.nbytes > self._max_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self.nbytes -= oldest.nbytes
