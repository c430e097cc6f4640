"""`deocc batch` against a client that asks one by one, over HTTP, in turns of one interleaved run.

python -m benchmarks.batch
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.hosting import local_host
from deocc import AsyncClient, Client
from deocc.batch import Layout, Plan, read_manifest, run

EXAMPLES = Path(__file__).parent.parent / "examples"


def write_manifest(folder: Path, objects: int) -> Path:
    """The repository's examples over and over, each under an id of its own."""
    examples = json.loads((EXAMPLES / "examples.json").read_text())
    rows = []
    for number in range(objects):
        example = examples[number % len(examples)]
        shutil.copyfile(EXAMPLES / example["file"], folder / example["file"])
        rows.append({"id": f"{number:04d}", "image": example["file"], "points": [example["point"]]})
    path = folder / "manifest.json"
    path.write_text(json.dumps(rows))
    return path


def one_by_one(url: str, manifest: Path) -> None:
    """What a first script does: ask, write, ask again."""
    with Client(url) as client:
        for entry in read_manifest(manifest).entries:
            client.complete(entry.image, points=entry.points, seed=0).save(manifest.parent / f"{entry.id}.png")


def batch(url: str, manifest: Path, clients: int) -> None:
    """`deocc batch`, from nothing: sidecars, alpha and manifest included."""
    read = read_manifest(manifest)
    layout = Layout(read.root, "priors", 1)
    shutil.rmtree(read.root / "priors", ignore_errors=True)

    async def work() -> None:
        async with AsyncClient(url, retries=0) as client:
            outcomes = await run(client, read.entries, Plan(layout, clients=clients))
        layout.write_manifest(read, [outcome.id for outcome in outcomes if outcome.failure is None])

    asyncio.run(work())


def main(
    objects: Annotated[int, typer.Option(min=1, help="in a manifest")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="of each, after one to warm up")] = 3,
    clients: Annotated[int, typer.Option(min=1, help="objects at once")] = 4,
) -> None:
    """Prints objects a second of both, and their ratio."""
    seconds: dict[str, list[float]] = {"one by one": [], "deocc batch": []}
    with tempfile.TemporaryDirectory() as folder, local_host() as url:
        manifest = write_manifest(Path(folder), objects)
        for turn in range(rounds + 1):
            for name, values in seconds.items():
                started = time.perf_counter()
                if name == "one by one":
                    one_by_one(url, manifest)
                else:
                    batch(url, manifest, clients)
                if turn:
                    values.append(time.perf_counter() - started)
    table = Table("way", "objects a second", "one by one / this")
    reference = statistics.median(seconds["one by one"])
    for name, values in seconds.items():
        middle = statistics.median(values)
        table.add_row(name, f"{objects / middle:.2f}", f"{reference / middle:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
