"""``deocc engines pull`` and ``convert``: from published weights to an engine on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deocc.cli.console import console, print_json
from deocc.cli.options import Json, Quiet
from deocc.local import provided

__all__ = ["convert", "pull"]

Name = Annotated[str, typer.Argument(help="deocc-anything, sam-vit-b, sam-vit-l or sam-vit-h.")]
Segmenter = Annotated[
    str | None,
    typer.Option(help="For deocc-anything: a SAM, or a bundle whose segmenter is taken. [default: sam-vit-b]"),
]
Completer = Annotated[
    str | None, typer.Option(help="For a SAM: the bundle whose completer is taken. [default: deocc-mini]")
]
Accept = Annotated[bool, typer.Option("--accept-licence", help="Accept the licences that are shown.")]
Out = Annotated[
    Path | None, typer.Option(help="The bundle's folder. [default: its name in engines/ of deocc's cache, DEOCC_CACHE]")
]
Dtype = Annotated[str, typer.Option(help="Of the weights on disk: float16 or float32.")]
Scheduler = Annotated[str, typer.Option(help="ddim, dpm++ or unipc; for deocc-anything.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace a bundle that is there already.")]


def pull(
    name: Name,
    segmenter: Segmenter = None,
    completer: Completer = None,
    revision: Annotated[
        list[str] | None,
        typer.Option(metavar="[HUB_ID=]REVISION", help="A branch, tag or commit; repeat it for several repositories."),
    ] = None,
    accept_licence: Accept = False,
    out: Out = None,
    dtype: Dtype = "float16",
    scheduler: Scheduler = "ddim",
    replace: Replace = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch published weights from the Hugging Face hub and make a bundle of them.

    HF_HOME and HF_HUB_OFFLINE are honoured; what was cut off is resumed.
    """
    made = provided("pull")(
        name,
        revisions=revision or [],
        accept=_asking(accept_licence),
        say=_saying(quiet),
        segmenter=segmenter,
        completer=completer,
        dtype=dtype,
        scheduler=scheduler,
        out=out,
        replace=replace,
    )
    _show(made, json)


def convert(
    name: Name,
    given: Annotated[
        list[Path],
        typer.Option("--from", metavar="PATH", help="A published file, or a folder of them. Repeat it."),
    ],
    segmenter: Segmenter = None,
    completer: Completer = None,
    accept_licence: Accept = False,
    out: Out = None,
    dtype: Dtype = "float16",
    scheduler: Scheduler = "ddim",
    replace: Replace = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a bundle of published files that are on this machine.

    For deocc-anything: the base's folder in diffusers' layout, the Lightning checkpoints, and SAM's weights. For a
    SAM: its .pth, or the folder of transformers' SamModel.
    """
    made = provided("convert")(
        name,
        given,
        accept=_asking(accept_licence),
        say=_saying(quiet),
        segmenter=segmenter,
        completer=completer,
        dtype=dtype,
        scheduler=scheduler,
        out=out,
        replace=replace,
    )
    _show(made, json)


def _asking(accepted: bool) -> Any:
    def accept(terms: str) -> bool:
        console().print(terms, markup=False)
        if accepted or not sys.stdin.isatty():
            return accepted
        return typer.confirm("Do you accept these licences?", err=True)

    return accept


def _saying(quiet: bool) -> Any:
    out = console(quiet=quiet)
    return lambda words: out.print(f"deocc: {words}", markup=False)


def _show(made: dict[str, Any], json: bool) -> None:
    if json:
        print_json(made)
        return
    commercial = "" if made["commercial_use"] else ", not for commercial use"
    console().print(f"{made['engine_id']} is at {made['path']} ({made['licence']}{commercial})", markup=False)
