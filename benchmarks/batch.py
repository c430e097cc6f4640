"""`deocc batch` against a client that asks one by one, over HTTP, in turns of one interleaved run.

Both ask for the same objects with the same seed, at the same host, and write what they get; who begins a round
alternates. The photos are few and come again, so that both find most of their embeddings kept.

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
from deocc.batch.check import check_entries

EXAMPLES = Path(__file__).parent.parent / "examples"
PRIORS = "priors"


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
    """`deocc batch`, from nothing: checks, sidecars, alpha and manifest included."""
    read = read_manifest(manifest)
    check_entries(read.entries)
    layout = Layout(read.root, PRIORS, 1)

    async def work() -> None:
        async with AsyncClient(url, retries=0) as client:
            outcomes = await run(client, read.entries, Plan(layout, clients=clients))
        made = [outcome.id for outcome in outcomes if outcome.made]
        if len(made) < len(read.entries):
            raise RuntimeError(f"only {len(made)} of {len(read.entries)} objects were made")
        layout.write_manifest(read, made)

    asyncio.run(work())


def main(
    objects: Annotated[int, typer.Option(min=1, help="in a manifest")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="of each, after one to warm up")] = 3,
    clients: Annotated[int, typer.Option(min=1, help="objects at once")] = 4,
) -> None:
    """Prints objects a second of both, their spread over the rounds, and the ratio of the medians."""
    seconds: dict[str, list[float]] = {"one by one": [], "deocc batch": []}
    with tempfile.TemporaryDirectory() as folder, local_host() as url:
        manifest = write_manifest(Path(folder), objects)
        for turn in range(rounds + 1):
            shutil.rmtree(Path(folder) / PRIORS, ignore_errors=True)
            for name, values in list(seconds.items())[:: 1 if turn % 2 else -1]:
                started = time.perf_counter()
                if name == "one by one":
                    one_by_one(url, manifest)
                else:
                    batch(url, manifest, clients)
                if turn:
                    values.append(time.perf_counter() - started)
    table = Table("way", "objects a second, median", "least to most", "seconds, one by one / this")
    reference = statistics.median(seconds["one by one"])
    for name, values in seconds.items():
        middle = statistics.median(values)
        spread = f"{objects / max(values):.2f} to {objects / min(values):.2f}"
        table.add_row(name, f"{objects / middle:.2f}", spread, f"{reference / middle:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
