"""Which way a client reaches its engine: over HTTP, over gRPC, or in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deocc.local import provided
from deocc.transport import AsyncTransport, BlockingTransport, Transport

__all__ = ["DEFAULT_URL", "Connection"]

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Connection:
    """At most one of `url`, `grpc` and `local`; none of them means DEFAULT_URL.

    Attributes:
        url: of the service, "http://host:port".
        grpc: "host:port", or "grpcs://host:port" for TLS.
        local: no service; the engines of this machine, in this process.
        engine: its name or id at the service; in process the name or path of its bundle. None: the default.
        timeout: seconds for one call; None for ever.
        headers: sent with every call, e.g. an authorization.

    Raises:
        ValueError: more than one way was named.
    """

    url: str | None = None
    grpc: str | None = None
    local: bool = False
    engine: str | None = None
    timeout: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.url is not None) + (self.grpc is not None) + self.local > 1:
            raise ValueError("give one of url, grpc and local")

    @property
    def engine_id(self) -> str:
        """What requests name; in process the transport itself was opened for the engine."""
        return "" if self.local else self.engine or ""

    def open(self) -> Transport:
        """Raises NotInstalled, and what loading an engine in process raises."""
        if self.local:
            return BlockingTransport(self.open_async)
        if self.grpc is not None:
            from deocc.grpc_transport import GrpcTransport

            return GrpcTransport(self.grpc, timeout=self.timeout, headers=self.headers)
        from deocc.http_transport import HttpTransport

        return HttpTransport(self.url or DEFAULT_URL, timeout=self.timeout, headers=self.headers)

    def open_async(self) -> AsyncTransport:
        """The same for asyncio."""
        if self.local:
            transport: AsyncTransport = provided("transport")(self.engine, self.timeout)
            return transport
        if self.grpc is not None:
            from deocc.grpc_transport import AsyncGrpcTransport

            return AsyncGrpcTransport(self.grpc, timeout=self.timeout, headers=self.headers)
        from deocc.http_transport import AsyncHttpTransport

        return AsyncHttpTransport(self.url or DEFAULT_URL, timeout=self.timeout, headers=self.headers)
