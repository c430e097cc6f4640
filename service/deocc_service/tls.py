"""TLS for gRPC and uvicorn, from the settings."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import grpc

from deocc_service.settings import Settings

__all__ = ["credentials", "uvicorn_options"]


def credentials(settings: Settings) -> grpc.ServerCredentials:
    """Of a gRPC server; with `client_ca` it hears only callers with a certificate of that authority."""
    assert settings.tls_key is not None
    assert settings.tls_certificate is not None
    pair = [(settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())]
    authority = None if settings.client_ca is None else settings.client_ca.read_bytes()
    return grpc.ssl_server_credentials(pair, authority, require_client_auth=authority is not None)


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """The same for HTTP in one process."""
    if not settings.tls:
        return {}
    options: dict[str, Path | int | str] = {
        "ssl_certfile": str(settings.tls_certificate),
        "ssl_keyfile": str(settings.tls_key),
    }
    if settings.client_ca is not None:
        options |= {"ssl_ca_certs": str(settings.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options
