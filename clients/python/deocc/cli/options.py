"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deocc.client import TIMEOUT, Client

__all__ = [
    "HOW",
    "PATIENCE",
    "Boxes",
    "Clients",
    "Draws",
    "EngineName",
    "Grpc",
    "GuidanceImage",
    "GuidanceText",
    "Json",
    "KeepVisible",
    "Local",
    "LocalStrength",
    "MaskFile",
    "Patience",
    "Photo",
    "Points",
    "Preset",
    "Priority",
    "Quiet",
    "Steps",
    "Text",
    "Timeout",
    "Url",
    "at_once",
    "connection_of",
    "named_service",
    "open_client",
    "parse_box",
    "parse_points",
]

SERVICE = "Where the work is done"
HOW = "How it is completed"
PROMPT = "What is meant in the photo (pixels, origin top left)"

Photo = Annotated[str, typer.Argument(metavar="PHOTO", help="A file, an http(s) address, or - for standard input.")]
Points = Annotated[
    list[str] | None,
    typer.Option(
        "--point",
        metavar="X,Y[,0|1]",
        help="A point on the object, or with 0 one that is not. Repeat it.",
        rich_help_panel=PROMPT,
    ),
]
Boxes = Annotated[
    str | None,
    typer.Option("--box", metavar="X0,Y0,X1,Y1", help="A box around what is visible.", rich_help_panel=PROMPT),
]
MaskFile = Annotated[
    Path | None,
    typer.Option("--mask", help="A picture the size of the photo, bright where the object is.", rich_help_panel=PROMPT),
]
Text = Annotated[str, typer.Option(help="What the object is, in a few words.", rich_help_panel=HOW)]
Preset = Annotated[str, typer.Option(help="fast, quality or what else the engine has.", rich_help_panel=HOW)]
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps of each stage.", rich_help_panel=HOW)]
GuidanceImage = Annotated[float | None, typer.Option(help="Guidance scale of the photo.", rich_help_panel=HOW)]
GuidanceText = Annotated[float | None, typer.Option(help="Guidance scale of the text.", rich_help_panel=HOW)]
LocalStrength = Annotated[float | None, typer.Option(help="From 0 (no refinement) to 1.", rich_help_panel=HOW)]
Draws = Annotated[
    int | None,
    typer.Option(min=1, help="Each sample is the mean of so many: likelier, less varied.", rich_help_panel=HOW),
]
KeepVisible = Annotated[
    bool, typer.Option(help="Keep the photo's pixels where the object is visible.", rich_help_panel=HOW)
]
Clients = Annotated[
    int | None, typer.Option(min=1, max=256, help="Objects at once. [default: cores here, 4 at a service]")
]
Patience = Annotated[float, typer.Option(min=0, help="Seconds to wait for a full or absent service.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="A service, by HTTP. [env vars: DEOCC_URL, DEOCC_API_KEY]", rich_help_panel=SERVICE),
]
Grpc = Annotated[
    str | None, typer.Option("--grpc", metavar="HOST:PORT", help="A service, by gRPC.", rich_help_panel=SERVICE)
]
Local = Annotated[
    bool,
    typer.Option("--local", help="In this process, even if DEOCC_URL is set. [default]", rich_help_panel=SERVICE),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine", metavar="NAME", help="An engine's name; in process also a bundle's path.", rich_help_panel=SERVICE
    ),
]
Priority = Annotated[
    Literal["low", "normal", "high"],
    typer.Option("--priority", help="Share of a service that others use too.", rich_help_panel=SERVICE),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", envvar="DEOCC_TIMEOUT", min=0.001, help="Seconds for the call.", rich_help_panel=SERVICE),
]
Json = Annotated[bool, typer.Option("--json", help="Say what came out as JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]

DEFAULT_TIMEOUT = TIMEOUT
PATIENCE = 600.0  # seconds
REMOTE_CLIENTS = 4


def open_client(url: str | None, grpc: str | None, local: bool, engine: str | None, timeout: float) -> Client:
    """The service that is named, else the one of DEOCC_URL, else the engines of this machine."""
    return Client(**connection_of(url, grpc, local, engine, timeout))


def connection_of(url: str | None, grpc: str | None, local: bool, engine: str | None, timeout: float) -> dict[str, Any]:
    """The arguments of `Client` and `AsyncClient` for it; `local` is true where no service is named."""
    url, grpc = named_service(url, grpc, local)
    local = url is None and grpc is None
    # By the environment alone: a key on a command line is there for all to see.
    key = None if local else os.environ.get("DEOCC_API_KEY")
    return {"url": url, "grpc": grpc, "local": local, "engine": engine, "timeout": timeout, "api_key": key}


def at_once(clients: int | None, local: bool) -> int:
    """How many objects are asked for at once: `clients`, else as many as there are cores here."""
    return clients or ((os.cpu_count() or 1) if local else REMOTE_CLIENTS)


def named_service(url: str | None, grpc: str | None, local: bool = False) -> tuple[str | None, str | None]:
    """`url` and `grpc`, one of them at most; the environment counts only where the command line is silent."""
    if (url is not None) + (grpc is not None) + local > 1:
        raise typer.BadParameter("give one of --url, --grpc and --local")
    if url is None and grpc is None and not local:
        url = os.environ.get("DEOCC_URL") or None
    return url, grpc


def parse_points(texts: list[str] | None) -> list[tuple[float, ...]]:
    """(x, y) or (x, y, label) each; what is wrong with the numbers themselves the client says."""
    return [_numbers(text, "--point", (2, 3)) for text in texts or ()]


def parse_box(text: str | None) -> tuple[float, ...] | None:
    return None if text is None else _numbers(text, "--box", (4,))


def _numbers(text: str, option: str, lengths: tuple[int, ...]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in lengths:
        raise typer.BadParameter(f"{text!r} is not {' or '.join(map(str, lengths))} numbers", param_hint=option)
    return numbers
