"""``deocc engines``: what is there to work with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from deocc.cli.compiled import bench, compile_engine, verify
from deocc.cli.console import print_json
from deocc.cli.options import DEFAULT_TIMEOUT, Grpc, Json, Timeout, Url, named_service
from deocc.cli.pull import convert, pull
from deocc.client import Client
from deocc.engines import Engine
from deocc.local import provided

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The engines of this machine, or of a service.")
app.command()(pull)
app.command()(convert)


@app.command("list")
def list_engines(url: Url = None, grpc: Grpc = None, timeout: Timeout = DEFAULT_TIMEOUT, json: Json = False) -> None:
    """Say which engines there are, under which licences."""
    url, grpc = named_service(url, grpc)
    if url is None and grpc is None:
        found: list[dict[str, Any]] = provided("engines")()
    else:
        with Client(url, grpc=grpc, timeout=timeout) as client:
            found = [_shown(engine) for engine in client.engines()]
    if json:
        print_json(found)
        return
    table = Table("engine", "licence", "commercial use", "runtime", "path", box=None)
    for engine in found:
        commercial = "yes" if engine["commercial_use"] else "no"
        table.add_row(engine["engine_id"], engine["licence"], commercial, engine["runtime"], engine.get("path", ""))
    Console(soft_wrap=True).print(table)


app.command("compile")(compile_engine)
app.command()(verify)
app.command()(bench)


def _shown(engine: Engine) -> dict[str, Any]:
    return {
        "engine_id": engine.engine_id,
        "name": engine.name,
        "licence": engine.licence,
        "commercial_use": engine.commercial_use,
        "runtime": ", ".join(sorted(set(engine.runtimes.values()))),
        "runtimes": dict(engine.runtimes),
        "window": engine.window,
        "default_preset": engine.default_preset,
        "presets": {name: asdict(preset) for name, preset in engine.presets.items()},
        "is_default": engine.is_default,
    }
