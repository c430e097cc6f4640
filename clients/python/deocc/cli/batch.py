"""``deocc batch``: prior images for every object of a manifest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from deocc.batch.check import check_entries
from deocc.batch.draw import SEEDS
from deocc.batch.manifest import Manifest, read_manifest
from deocc.batch.priors import Layout
from deocc.batch.run import Outcome, Plan, run
from deocc.cli.console import console, print_json
from deocc.cli.exits import Exit
from deocc.cli.meter import Meter
from deocc.cli.options import (
    DEFAULT_TIMEOUT,
    HOW,
    PATIENCE,
    Clients,
    Draws,
    EngineName,
    Grpc,
    GuidanceImage,
    GuidanceText,
    Json,
    KeepVisible,
    Local,
    LocalStrength,
    Patience,
    Preset,
    Priority,
    Quiet,
    Steps,
    Timeout,
    Url,
    at_once,
    connection_of,
)
from deocc.client import AsyncClient

__all__ = ["batch"]


def batch(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="ExtremeOcc-3D's manifest.json, JSONL, CSV, or COCO annotations.")
    ],
    samples: Annotated[int, typer.Option(min=1, max=1000, help="Priors of each object.", rich_help_panel=HOW)] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS - 1, help="Prior i is drawn with seed + i.", rich_help_panel=HOW)
    ] = 0,
    root: Annotated[
        Path | None, typer.Option(help="The folder that paths are relative to. [default: the manifest's]")
    ] = None,
    out: Annotated[str, typer.Option(help="The priors' folder inside the root.")] = "priors",
    masks: Annotated[bool, typer.Option("--masks", help="Write the amodal masks as prior_masks, too.")] = False,
    preset: Preset = "",
    steps: Steps = None,
    guidance_image: GuidanceImage = None,
    guidance_text: GuidanceText = None,
    local_strength: LocalStrength = None,
    draws: Draws = None,
    keep_visible: KeepVisible = True,
    allow_holes: Annotated[
        bool, typer.Option("--allow-holes", help="Write the manifest even if samples failed.")
    ] = False,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown-fields", help="Keep fields that are not known.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Look at the manifest and its pictures, and leave.")] = False,
    clients: Clients = None,
    patience: Patience = PATIENCE,
    url: Url = None,
    grpc: Grpc = None,
    local: Local = False,
    engine: EngineName = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    priority: Priority = "low",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Complete every object of a manifest: prior images for amodal 3D.

    Writes priors/ID/prior_00.png … and manifest_with_priors.json into the data set's folder. Run it again to go on
    where it was stopped: what is finished stays. Nothing is started before the whole manifest has been checked.
    """
    connection = connection_of(url, grpc, local, engine, timeout)
    read = read_manifest(manifest, root, allow_unknown=allow_unknown)
    check_entries(read.entries)
    layout = Layout(read.root, out.strip("/"), samples, masks)
    for entry in read.entries:
        layout.of(entry.id)
    if check:
        _finish({"samples": len(read.entries), "checked": True}, f"{len(read.entries)} samples are fit", json, quiet)
        return
    options: dict[str, Any] = {
        "preset": preset,
        "steps": steps,
        "guidance_image": guidance_image,
        "guidance_text": guidance_text,
        "local_strength": local_strength,
        "draws": draws,
        "keep_visible": keep_visible,
    }
    plan = Plan(
        layout,
        seed,
        options,
        at_once(clients, connection["local"]),
        patience,
        None if connection["local"] else engine,
        priority,
    )
    outcomes = asyncio.run(_run(read, plan, connection, quiet))
    _end(read, layout, outcomes, allow_holes, json, quiet)


async def _run(manifest: Manifest, plan: Plan, connection: dict[str, Any], quiet: bool) -> list[Outcome]:
    screen = console(quiet=quiet)
    async with AsyncClient(**connection, retries=0) as client:
        with Meter(screen, "completing", len(manifest.entries)) as meter:

            def told(outcome: Outcome) -> None:
                meter.advance()
                if outcome.failure:
                    screen.print(f"{outcome.id}: {outcome.failure}", style="red", markup=False)

            return await run(client, manifest.entries, plan, told)


def _end(
    manifest: Manifest, layout: Layout, outcomes: list[Outcome], allow_holes: bool, json: bool, quiet: bool
) -> None:
    """The manifest if it has no holes, and a summary."""
    finished = [outcome.id for outcome in outcomes if outcome.failure is None]
    failed = {outcome.id: outcome.failure for outcome in outcomes if outcome.failure is not None}
    written = layout.write_manifest(manifest, finished) if not failed or allow_holes else None
    made = sum(outcome.made for outcome in outcomes)
    summary = {
        "samples": len(outcomes),
        "made": made,
        "found": len(finished) - made,
        "failed": failed,
        "manifest": None if written is None else str(written),
    }
    words = f"{made} made, {len(finished) - made} found finished, {len(failed)} failed; "
    words += f"{written}" if written else "no manifest was written, because it would have holes (--allow-holes)"
    _finish(summary, words, json, quiet)
    if failed:
        raise typer.Exit(Exit.OTHER)


def _finish(summary: dict[str, Any], words: str, json: bool, quiet: bool) -> None:
    if json:
        print_json(summary)
    else:
        console(quiet=quiet).print(words, markup=False)
