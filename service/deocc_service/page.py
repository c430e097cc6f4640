"""The playground and the example scenes: static files, from an installed wheel or the source tree."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles

__all__ = ["Example", "add_page", "examples_folder", "first_example"]

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
# Else an upgrade would mix the modules of two versions.
REVALIDATED = {"Cache-Control": "no-cache"}


@dataclass(frozen=True)
class Example:
    """A scene to try things on; `point` is xy in its pixels."""

    path: Path
    point: tuple[float, float]


def add_page(app: FastAPI) -> None:
    """`/` and its assets, `/examples.json` and `/examples/…`; nothing where the files are missing."""
    examples = examples_folder()

    @app.get("/examples.json", include_in_schema=False)
    async def examples_json() -> JSONResponse:
        return JSONResponse(_scenes(examples))

    if examples is not None:
        app.mount("/examples", StaticFiles(directory=examples))
    web = _folder("web", "clients/web", "index.html")
    if web is None:
        return
    # One route each rather than a mount at "/": that would answer for unknown and mistaken API calls too.
    for entry in sorted(web.iterdir()):
        if entry.is_dir():
            app.mount(f"/{entry.name}", StaticFiles(directory=entry))
        elif entry.name == "index.html":
            app.add_api_route("/", _file(entry), include_in_schema=False)
        elif not entry.name.startswith("."):
            app.add_api_route(f"/{entry.name}", _file(entry), include_in_schema=False)


def examples_folder() -> Path | None:
    """Where the example scenes are, if there are any."""
    return _folder("examples", "examples", "examples.json")


def first_example() -> Example | None:
    """For the command line that is printed at the start."""
    folder = examples_folder()
    for scene in _scenes(folder):
        if folder is not None:
            x, y = scene["point"]
            return Example(folder / scene["file"], (x, y))
    return None


def _scenes(folder: Path | None) -> list[dict[str, Any]]:
    scenes: list[dict[str, Any]] = json.loads((folder / "examples.json").read_text()) if folder is not None else []
    return scenes


def _folder(installed: str, source: str, marker: str) -> Path | None:
    return next((folder for folder in (HERE / installed, SOURCE / source) if (folder / marker).is_file()), None)


def _file(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(path, headers=REVALIDATED)

    return send
