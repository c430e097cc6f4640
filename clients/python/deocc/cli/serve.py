"""``deocc serve``: answer requests."""

from __future__ import annotations

from typing import Annotated

import typer

from deocc.local import provided

__all__ = ["serve"]


def serve(
    local: Annotated[bool, typer.Option("--local", help="One process, without Ray: for laptops and tests.")] = False,
    host: Annotated[str | None, typer.Option(help="The address to listen at. [default: 127.0.0.1]")] = None,
    http_port: Annotated[int | None, typer.Option(min=0, max=65535, help="[default: 8000]")] = None,
    grpc_port: Annotated[int | None, typer.Option(min=0, max=65535, help="[default: 9000]")] = None,
    engine: Annotated[str | None, typer.Option(metavar="NAME_OR_PATH", help="The bundle to serve.")] = None,
    fused: Annotated[bool, typer.Option("--fused", help="Ray: both models in one replica.")] = False,
) -> None:
    """Serve HTTP, gRPC and the playground page until stopped.

    What is not given here comes from DEOCC_ variables.
    """
    given = {
        "http_host": host,
        "grpc_host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "engine": engine,
        "fused": fused or None,
    }
    provided("serve")(local=local, **{name: value for name, value in given.items() if value is not None})
