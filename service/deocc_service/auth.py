"""API keys: who may ask, how often, and how much at once. The same for both protocols, before a body is read."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from deocc.errors import InvalidOption
from deocc_engines.completion import Priority
from deocc_engines.errors import InvalidOption as OptionRefused
from deocc_engines.errors import RateLimited, Unauthenticated

__all__ = ["ApiKey", "ApiKeys", "Guard", "named_key", "new_key"]

PREFIX = "deocc_"
SECRET_BYTES = 32


class ApiKey(BaseModel):
    """An entry of the keys' file.

    Only a hash is kept. It is a plain one: a key has 256 random bits, so that there is nothing to guess and a slow
    hash would only slow down every request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None
    max_priority: Literal["low", "normal", "high"] = "high"


_FILE = TypeAdapter(list[ApiKey])


def new_key(name: str) -> tuple[str, ApiKey]:
    """A fresh key, to be shown once, and the entry that lets it in."""
    key = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    return key, ApiKey(name=name, sha256=_hash(key))


def named_key(name: str) -> tuple[str, str]:
    """The same as text: the entry point ``new_key`` of the client's group ``deocc.local``.

    Raises:
        InvalidOption: such a name is not accepted.
    """
    try:
        key, entry = new_key(name)
    except ValidationError:
        raise InvalidOption("a name has letters, digits, points, dashes and underscores, 64 at most") from None
    return key, entry.model_dump_json(exclude_defaults=True)


class ApiKeys:
    """The keys of a service. Limits hold in each process that lets requests in. Thread-safe."""

    def __init__(self, keys: list[ApiKey]) -> None:
        self._keys = keys
        self._rates = MovingWindowRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def read(cls, file: Path) -> ApiKeys:
        """Of a JSON file: a list of entries.

        Raises:
            ValueError: it is not there, or not what it should be; nothing of its content is in the message.
        """
        try:
            keys = _FILE.validate_python(json.loads(file.read_text()))
        except OSError as error:
            raise ValueError(f"the keys' file cannot be read: {error.strerror}") from None
        except ValidationError as error:
            places = sorted({".".join(map(str, fault["loc"])) for fault in error.errors()})
            raise ValueError(f"the keys' file is wrong at {', '.join(places)}") from None
        except ValueError:
            raise ValueError("the keys' file is not JSON") from None
        if len({key.name for key in keys}) < len(keys):
            raise ValueError("two keys of the keys' file have the same name")
        return cls(keys)

    @contextmanager
    def admitted(self, authorization: str | None) -> Iterator[str]:
        """For as long as a request runs; the name of its key.

        Args:
            authorization: the header: ``Bearer KEY``, or ``Basic`` with the key for password, as browsers ask for it.

        Raises:
            Unauthenticated: no key, or none of ours.
            RateLimited: too many requests with this key, in a minute or at once.
        """
        key = self._known(authorization)
        with self._lock:
            if key.concurrency is not None and self._running[key.name] >= key.concurrency:
                raise RateLimited("too many requests with this key at once")
            self._running[key.name] += 1
        try:
            self._count(key)
            yield key.name
        finally:
            with self._lock:
                self._running[key.name] -= 1

    def check_priority(self, name: str | None, priority: Priority) -> None:
        """Raises InvalidOption if the key of this name may not ask for so much."""
        for key in self._keys:
            if key.name == name and priority.weight > Priority[key.max_priority.upper()].weight:
                raise OptionRefused(f"with this key at most {key.max_priority}", field="options.priority")

    def _count(self, key: ApiKey) -> None:
        if key.requests_per_minute is not None:
            rate = RateLimitItemPerMinute(key.requests_per_minute)
            if not self._rates.hit(rate, key.name):
                reset = self._rates.get_window_stats(rate, key.name).reset_time
                raise RateLimited("too many requests with this key", retry_after=max(1.0, reset - time.time()))

    def _known(self, authorization: str | None) -> ApiKey:
        presented = _hash(_secret(authorization or ""))
        found = None
        for key in self._keys:  # all of them, so that the time tells nothing
            if hmac.compare_digest(key.sha256, presented):
                found = key
        if found is None:
            raise Unauthenticated("send one of this service's API keys")
        return found


class Guard:
    """What asks for keys, or lets everybody in if there are none.

    Args:
        keys: None: the service is open.
    """

    def __init__(self, keys: ApiKeys | None) -> None:
        self._keys = keys

    @classmethod
    def of(cls, file: Path | None) -> Guard:
        """Raises ValueError if the file is wrong."""
        return cls(None if file is None else ApiKeys.read(file))

    @property
    def open(self) -> bool:
        """True if nobody needs a key."""
        return self._keys is None

    @contextmanager
    def admitted(self, authorization: str | None) -> Iterator[str | None]:
        """See ApiKeys."""
        if self._keys is None:
            yield None
            return
        with self._keys.admitted(authorization) as name:
            yield name

    def check_priority(self, name: str | None, priority: Priority) -> None:
        """See ApiKeys."""
        if self._keys is not None:
            self._keys.check_priority(name, priority)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _secret(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""
