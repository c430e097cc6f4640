"""``deocc doctor``: is this machine fit?"""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console

from deocc.cli.console import print_json
from deocc.cli.exits import Exit
from deocc.cli.options import Json
from deocc.client import Client
from deocc.errors import DeoccError, NotInstalled
from deocc.local import provided

__all__ = ["doctor"]

# What it is, whether it is as it should be (None: neither good nor bad), and a word to it.
Finding = tuple[str, bool | None, str]

OLDEST_PYTHON = (3, 11)
ENOUGH_MEMORY = 4  # GiB; the embedded engine and a large photo fit
PATIENCE = 2.0  # seconds, for whoever holds a port
VERSIONS = ("deocc", "grpcio", "protobuf", "httpx", "pillow", "numpy")
MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "–"}


def doctor(
    http_port: Annotated[int, typer.Option(help="The HTTP port that `serve` would take.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="The gRPC port that `serve` would take.")] = 9000,
    json: Json = False,
) -> None:
    """Look at this machine: versions, hardware, engines, ports. Fails if anything is marked ✗."""
    findings = [*_client(), *_engines(), *_ports(http_port, grpc_port)]
    if json:
        print_json([{"name": name, "ok": good, "detail": detail} for name, good, detail in findings])
    else:
        screen = Console(highlight=False, soft_wrap=True)
        for name, good, detail in findings:
            screen.print(f"{MARKS[good]} {name:<18}", end="")
            screen.print(detail, markup=False)
    if any(good is False for _, good, _ in findings):
        raise typer.Exit(Exit.OTHER)


def _client() -> Iterator[Finding]:
    yield "python", sys.version_info >= OLDEST_PYTHON, f"{platform.python_version()} on {platform.platform()}"
    for name in VERSIONS:
        yield name, True, version(name)
    yield "cores", True, str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    if "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        yield "memory", memory >= ENOUGH_MEMORY, f"{memory:.0f} GiB"


def _engines() -> list[Finding]:
    try:
        diagnose = provided("diagnose")
    except NotInstalled as error:
        return [("engines", None, error.message)]
    return list(diagnose())


def _ports(http: int, grpc: int) -> Iterator[Finding]:
    for name, port, url in (("HTTP", http, f"http://127.0.0.1:{http}"), ("gRPC", grpc, None)):
        taken = _taken(port)
        if taken is None:
            yield f"{name} port {port}", True, "free"
        elif engine := _engine_at(url, None if url else f"127.0.0.1:{grpc}"):
            yield f"{name} port {port}", True, f"deocc runs there with {engine}"
        else:
            yield f"{name} port {port}", False, f"not free: {taken}"


def _taken(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror
    return None


def _engine_at(url: str | None, grpc: str | None) -> str | None:
    try:
        with Client(url, grpc=grpc, timeout=PATIENCE, retries=0) as client:
            return next((engine.engine_id for engine in client.engines() if engine.is_default), None)
    except DeoccError:
        return None
