"""What an operator may set. Read once, at the edge; unknown keys are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from deocc_engines.limits import Limits

__all__ = ["HANDED_DOWN", "Settings"]

PREFIX = "DEOCC_"
# Read by the client, the command line and the engines, which share the prefix.
FOREIGN = frozenset({"DEOCC_URL", "DEOCC_TIMEOUT", "DEOCC_CACHE", "DEOCC_HANDED_DOWN"})
# All settings of a host as JSON, for processes that it starts and cannot pass arguments to.
HANDED_DOWN = "DEOCC_HANDED_DOWN"

Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """From ``DEOCC_*`` variables (nested: ``DEOCC_LIMITS__MAX_BYTES``) or keyword arguments, which win."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, protected_namespaces=()
    )

    http_host: str = "127.0.0.1"
    http_port: Port = 8000
    grpc_host: str = "127.0.0.1"
    grpc_port: Port = 9000
    engine: str | None = None  # name or path of a bundle; None: the embedded one
    slots: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)  # completions at work at once
    queue: int = Field(32, ge=0)  # completions that may wait for a slot
    segment_slots: int = Field(2, ge=1)  # segmentations at work at once, beside the completions
    segment_queue: int = Field(128, ge=0)
    fused: bool = False  # Ray: both models in one replica
    limits: Limits = Limits()
    image_ttl: float = Field(3600.0, gt=0)  # seconds
    image_bytes: int = Field(512 * 1024 * 1024, ge=0)  # of all stored images together
    drain_seconds: float = Field(30.0, ge=0)  # given to running requests at the end

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ, /, **overrides: Any) -> Self:
        """Settings of this process.

        Raises:
            ValueError: an unknown ``DEOCC_`` variable or an unfit value.
        """
        known = {PREFIX + name.upper() for name in cls.model_fields} | FOREIGN
        for key in environ:
            if key.startswith(PREFIX) and key.split("__")[0] not in known:
                raise ValueError(f"unknown setting {key}")
        return cls(**overrides)

    @classmethod
    def handed_down(cls, environ: Mapping[str, str] = os.environ, /) -> Self:
        """Those of the host that started this process; without one, those of the environment."""
        given = environ.get(HANDED_DOWN)
        return cls.read(environ) if given is None else cls.model_validate_json(given)

    @property
    def max_body(self) -> int:
        """Bytes of one HTTP body or gRPC message: base64 of the largest image, a mask, and the rest of the request."""
        return 2 * self.limits.max_bytes + 1024 * 1024
