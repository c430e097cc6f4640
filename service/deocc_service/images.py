"""Uploaded images, kept by content for a while, in a directory that every edge replica sees."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from deocc_engines.errors import NotFound, Overloaded
from deocc_engines.image import image_id_of
from deocc_service import metrics

__all__ = ["ImageStore"]

ABANDONED = 600.0  # seconds
IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")


class ImageStore:
    """Encoded images by their content address, one file each; a file's time is when it expires.

    What was uploaded stays until it expires, and every use starts its time anew. What merely came with a request is
    kept too, as long as there is room: it goes first, the one that would expire first before the others. Safe to use
    from several threads and processes at once, which share the directory and nothing else.

    Args:
        ttl: seconds.
        max_bytes: of all images together.
        folder: None: one of its own, which ends with the store.
        clock: seconds since the epoch, as files have them.
    """

    def __init__(
        self, ttl: float, max_bytes: int, folder: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.ttl = ttl
        self._max_bytes = max_bytes
        self._clock = clock
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="deocc-images-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._promised, self._spare = folder / "uploaded", folder / "seen"
        for part in (self._promised, self._spare):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, content: bytes) -> str:
        """Keeps an encoded image until it expires and returns its id.

        Raises:
            Overloaded: no room; what others were promised stays.
        """
        image_id = image_id_of(content)
        file = self._promised / image_id
        if not (self._touched(file) and file.read_bytes() == content):
            self._make_room(len(content))
            self._write(file, content)
        return image_id

    def note(self, image_id: str, content: bytes) -> None:
        """Keeps an encoded image if there is room."""
        if self._touched(self._promised / image_id) or self._touched(self._spare / image_id):
            return
        with suppress(Overloaded):
            self._make_room(len(content))
            self._write(self._spare / image_id, content)

    def get(self, image_id: str, *, field: str = "image.image_id") -> bytes:
        """The encoded image.

        Raises:
            NotFound: never uploaded, or expired.
        """
        if IMAGE_ID.fullmatch(image_id):
            for part in (self._promised, self._spare):
                with suppress(FileNotFoundError):
                    if self._touched(part / image_id):
                        content = (part / image_id).read_bytes()
                        if image_id_of(content) == image_id:  # who may write there could have put anything
                            return content
        raise NotFound("no such image; upload it again", field=field)

    def _touched(self, file: Path) -> bool:
        """Starts its time anew; False if it is not there or has expired."""
        now = self._clock()
        try:
            if file.stat().st_mtime <= now:
                return False
            os.utime(file, (now, now + self.ttl))
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, size: int) -> None:
        now = self._clock()
        kept = []
        for part in (self._spare, self._promised):
            for file, expiry, length in self._files(part):
                if expiry <= now:
                    file.unlink(missing_ok=True)
                else:
                    kept.append((part is self._promised, expiry, length, file))
        total = size + sum(length for _, _, length, _ in kept)
        promised = sorted(expiry for held, expiry, _, _ in kept if held)
        for held, _, length, file in sorted(kept):
            if total <= self._max_bytes or held:
                break
            file.unlink(missing_ok=True)
            total -= length
        metrics.IMAGE_STORE.set(total)
        if total > self._max_bytes and promised:
            raise Overloaded("no room for another image now", retry_after=promised[0] - now)
        if total > self._max_bytes:
            raise Overloaded("the service keeps no images of this size", retry_after=self.ttl)

    def _write(self, file: Path, content: bytes) -> None:
        new = file.with_name(f".{os.getpid()}-{time.monotonic_ns()}")
        now = self._clock()
        try:
            new.write_bytes(content)
            os.utime(new, (now, now + self.ttl))
            new.replace(file)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise Overloaded("images cannot be kept now; send them with each request", retry_after=60.0) from error

    @staticmethod
    def _files(part: Path) -> Iterator[tuple[Path, float, int]]:
        """With their expiry and their bytes."""
        with os.scandir(part) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    if entry.name.startswith("."):  # being written; or left behind by who died over it
                        if status.st_ctime < time.time() - ABANDONED:
                            Path(entry.path).unlink(missing_ok=True)
                        continue
                    yield Path(entry.path), status.st_mtime, status.st_size
