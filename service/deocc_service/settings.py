"""What an operator may set. Read once, at the edge; unknown keys are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from deocc_engines.limits import Limits

__all__ = ["HANDED_DOWN", "Replicas", "Settings"]

PREFIX = "DEOCC_"
# Read by the client, the command line and the engines, which share the prefix.
CONFIG = "DEOCC_CONFIG"
FOREIGN = frozenset({CONFIG, "DEOCC_URL", "DEOCC_TIMEOUT", "DEOCC_API_KEY", "DEOCC_CACHE", "DEOCC_HANDED_DOWN"})
# All settings of a host as JSON, for processes that it starts and cannot pass arguments to.
HANDED_DOWN = "DEOCC_HANDED_DOWN"

Port = Annotated[int, Field(ge=0, le=65535)]


class Replicas(BaseModel):
    """Ray: replicas of one model, and what each reserves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: Annotated[int, Field(ge=0)] = 1  # 0: none while nobody asks; the next caller waits for a start
    max: Annotated[int, Field(ge=1)] = 1
    backlog_seconds: Annotated[float, Field(gt=0)] = 10.0  # of work that a replica has before another one is started
    cpus: Annotated[float, Field(ge=0)] = 0.0  # 0: `slots` bound what runs, and a small machine holds all
    gpus: Annotated[float, Field(ge=0)] = 0.0  # a fraction shares the card

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must not be less than min")
        return self


class Settings(BaseSettings):
    """From a YAML file that ``DEOCC_CONFIG`` names, ``DEOCC_*`` variables (nested: ``DEOCC_LIMITS__MAX_BYTES``), which
    win over it, or keyword arguments, which win over both.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, protected_namespaces=()
    )

    http_host: str = "127.0.0.1"
    http_port: Port = 8000
    grpc_host: str = "127.0.0.1"
    grpc_port: Port = 9000
    api_keys_file: Path | None = None  # see `deocc_service.auth`; None: no keys are asked for
    tls_certificate: Path | None = None  # PEM, with its chain; None: in clear
    tls_key: Path | None = None  # PEM
    client_ca: Path | None = None  # PEM: only callers with a certificate of this authority are heard; --local only
    metrics_host: str = "127.0.0.1"  # if not the loopback, a private Ray cluster listens on all interfaces
    metrics_port: Port | None = 9464  # for Prometheus; None: not served, where it can be helped
    log_format: Literal["json", "text"] = "json"  # on stderr; text is for people
    otlp_endpoint: str | None = None  # of an OpenTelemetry collector (HTTP); None: as OTEL_ variables say, else none
    engine: str | None = None  # name or path of a bundle; None: the embedded one
    slots: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)  # denoising steps computed at once on a CPU
    queue: int = Field(32, ge=1)  # completions in the house; their samples share the steps
    queue_bytes: int = Field(512 * 1024 * 1024, ge=1)  # of their images, as sent
    segment_slots: int = Field(2, ge=1)  # segmentations at work at once, beside the completions
    segment_queue: int = Field(128, ge=0)
    edges: int = Field(1, ge=1)  # Ray: replicas of the edge
    segmenters: Replicas = Replicas()
    completers: Replicas = Replicas()
    fused: bool = False  # Ray: both models in one replica
    limits: Limits = Limits()
    body_seconds: float = Field(60.0, gt=0)  # in which a body must have come
    # For the work of one request, whatever its caller gives; none: as long as it takes.
    request_seconds: float | None = Field(3600.0, gt=0)
    image_ttl: float = Field(3600.0, gt=0)  # seconds
    image_dir: Path | None = None  # shared by all nodes of a cluster; None: one of this machine, gone with the service
    image_bytes: int = Field(512 * 1024 * 1024, ge=0)  # of all stored images together
    drain_seconds: float = Field(30.0, ge=0)  # given to running requests at the end

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ, /, **overrides: Any) -> Self:
        """Settings of this process.

        Raises:
            ValueError: an unknown ``DEOCC_`` variable or an unfit value.
        """
        file = environ.get(CONFIG)
        if file is not None and not Path(file).is_file():
            raise ValueError(f"{CONFIG} names no file")
        known = {PREFIX + name.upper() for name in cls.model_fields} | FOREIGN
        for key in environ:
            if key.startswith(PREFIX) and key.split("__")[0] not in known:
                raise ValueError(f"unknown setting {key}")
        return cls(**overrides)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The first one that has a value wins."""
        file = YamlConfigSettingsSource(settings_cls, yaml_file=os.environ.get(CONFIG))
        return init_settings, env_settings, file

    @classmethod
    def handed_down(cls, environ: Mapping[str, str] = os.environ, /) -> Self:
        """Those of the host that started this process; without one, those of the environment."""
        given = environ.get(HANDED_DOWN)
        return cls.read(environ) if given is None else cls.model_validate_json(given)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.client_ca is not None and self.tls_key is None:
            raise ValueError("client_ca needs tls_certificate and tls_key")
        return self

    @property
    def tls(self) -> bool:
        """True if nothing is served in clear."""
        return self.tls_key is not None

    @property
    def max_body(self) -> int:
        """Bytes of one HTTP body or gRPC message: base64 of the largest image, a mask, and the rest of the request."""
        return 2 * self.limits.max_bytes + 1024 * 1024
