"""``deocc eval``: how good is it? The work is done by what the extra "eval" brings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deocc.batch.draw import SEEDS
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
    Quiet,
    Steps,
    Timeout,
    Url,
    at_once,
    connection_of,
)
from deocc.local import provided

__all__ = ["app"]

DATA = "What is evaluated"
FIGURES = "How it is measured"
EXTRA = "eval"


class _RunByDefault(TyperGroup):
    """`deocc eval DATASET` is `deocc eval run DATASET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            args = ["run", *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    help="Measure an engine or a service on a data set, through the public API.",
)


@app.command()
def run(
    dataset: Annotated[
        Path,
        typer.Argument(help="COCO-amodal, KINS or other COCO JSON, SynergyAmodal's list, a folder, or a scene set."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Report and results.")],
    images: Annotated[
        Path | None, typer.Option(help="The folder of images. [default: the annotations']", rich_help_panel=DATA)
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="cocoa (BSDS-A, MP3D-Amodal too), instances (KINS too), synergy, folder, scenes. [default: seen]",
            rich_help_panel=DATA,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many examples.", rich_help_panel=DATA)] = None,
    only: Annotated[
        Path | None, typer.Option(help="A JSON list of the keys or indices to take.", rich_help_panel=DATA)
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(help="mask: the annotation's; point: a click at its deepest pixel.", rich_help_panel=HOW),
    ] = "mask",
    text: Annotated[
        str, typer.Option(help="none, or name: the annotation's name for the object.", rich_help_panel=HOW)
    ] = "none",
    samples: Annotated[
        int, typer.Option(min=1, max=1000, help="Of each object, with seeds from --seed on.", rich_help_panel=HOW)
    ] = 8,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, rich_help_panel=HOW)] = 0,
    preset: Preset = "",
    steps: Steps = None,
    guidance_image: GuidanceImage = None,
    guidance_text: GuidanceText = None,
    local_strength: LocalStrength = None,
    draws: Draws = None,
    keep_visible: KeepVisible = True,
    occluded_above: Annotated[
        float,
        typer.Option(min=0, max=1, help="A larger hidden share counts as occluded.", rich_help_panel=FIGURES),
    ] = 0.0,
    features: Annotated[
        Path | None,
        typer.Option(help="A network for FID and KID (.onnx, or .pt TorchScript).", rich_help_panel=FIGURES),
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option(help="A network for LPIPS (.onnx, or .pt TorchScript).", rich_help_panel=FIGURES),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=10, help="Of the bootstrap over images.", rich_help_panel=FIGURES)
    ] = 1000,
    clients: Clients = None,
    patience: Patience = PATIENCE,
    url: Url = None,
    grpc: Grpc = None,
    local: Local = False,
    engine: EngineName = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Complete every object of a data set and report how well.

    Writes report.json and report.html. Run it again to go on where it was stopped.
    """
    evaluate = provided("evaluate", EXTRA)
    connection = connection_of(url, grpc, local, engine, timeout)
    screen = console(quiet=quiet)
    found: dict[str, Any] = evaluate(
        dataset,
        output,
        images=images,
        form=form,
        limit=limit,
        only=only,
        settings={
            "prompt": prompt,
            "text": text,
            "samples": samples,
            "seed": seed,
            "preset": preset,
            "steps": steps,
            "guidance_image": guidance_image,
            "guidance_text": guidance_text,
            "local_strength": local_strength,
            "draws": draws,
            "keep_visible": keep_visible,
        },
        occluded_above=occluded_above,
        features=features,
        lpips=lpips,
        resamples=resamples,
        clients=at_once(clients, connection["local"]),
        patience=patience,
        connection=connection,
        meter=lambda name, total: Meter(screen, name, total),
        say=lambda words: screen.print(words, markup=False),
    )
    if json:
        print_json(found["summary"])
    else:
        screen.print(f"{found['json']}, {found['html']}", markup=False)
    if found["unfinished"]:
        screen.print(f"{found['unfinished']} examples failed for want of the service; run again", markup=False)
        raise typer.Exit(Exit.OTHER)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json")],
    second: Annotated[Path, typer.Argument(metavar="B.json")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A JSON file for the comparison.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether B is better than A: paired tests over the images that both saw."""
    found: dict[str, Any] = provided("compare", EXTRA)(first, second, output)
    if json:
        print_json(found)
    elif not quiet:
        typer.echo(found["table"])  # the result itself, as `deocc engines list` has it


@app.command()
def priors(
    manifest: Annotated[Path, typer.Argument(help="A manifest_with_priors.json of ExtremeOcc-3D.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON file to write.")],
    root: Annotated[
        Path | None, typer.Option(help="The folder that paths are relative to. [default: the manifest's]")
    ] = None,
    lpips: Annotated[Path | None, typer.Option(help="A network for LPIPS (.onnx, or .pt TorchScript).")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure prior images against the renders of the true object and the observed part."""
    screen = console(quiet=quiet)
    found: dict[str, Any] = provided("evaluate_priors", EXTRA)(
        manifest, output, root=root, lpips=lpips, meter=lambda name, total: Meter(screen, name, total)
    )
    if json:
        print_json(found["summary"])
    else:
        screen.print(str(output), markup=False)
