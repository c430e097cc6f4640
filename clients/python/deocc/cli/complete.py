"""``deocc complete``: the whole object out of a photo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from deocc.cli.console import console, print_json
from deocc.cli.files import Target, read_photo
from deocc.cli.options import (
    DEFAULT_TIMEOUT,
    HOW,
    Boxes,
    Draws,
    EngineName,
    Grpc,
    GuidanceImage,
    GuidanceText,
    Json,
    KeepVisible,
    Local,
    LocalStrength,
    MaskFile,
    Photo,
    Points,
    Preset,
    Priority,
    Quiet,
    Steps,
    Text,
    Timeout,
    Url,
    open_client,
    parse_box,
    parse_points,
)
from deocc.errors import ServerError
from deocc.events import Event, Progress, Stage
from deocc.results import Completion

__all__ = ["complete"]

STAGES = {Stage.SEGMENT: "finding it", Stage.GLOBAL: "completing it", Stage.LOCAL: "refining it"}


def complete(
    photo: Photo,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The picture, a folder, or - for standard output.")
    ],
    point: Points = None,
    box: Boxes = None,
    mask: MaskFile = None,
    text: Text = "",
    samples: Annotated[int, typer.Option(min=1, help="How many completions.", rich_help_panel=HOW)] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Same seed, same bytes.", rich_help_panel=HOW)
    ] = None,
    preset: Preset = "",
    steps: Steps = None,
    guidance_image: GuidanceImage = None,
    guidance_text: GuidanceText = None,
    local_strength: LocalStrength = None,
    draws: Draws = None,
    keep_visible: KeepVisible = True,
    crop: Annotated[bool, typer.Option("--crop", help="Cut the picture to the object.", rich_help_panel=HOW)] = False,
    url: Url = None,
    grpc: Grpc = None,
    local: Local = False,
    engine: EngineName = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    priority: Priority = "normal",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give the whole object: RGBA pictures with the hidden parts filled in, best first.

    Several samples become out.png, out-1.png and so on.
    """
    target = Target(output, photo, json=json)
    target.check_count(samples)
    points, corners = parse_points(point), parse_box(box)
    with open_client(url, grpc, local, engine, timeout) as client:
        events = client.stream(
            read_photo(photo),
            points=points,
            box=corners,
            mask=mask,
            text=text,
            preset=preset,
            num_samples=samples,
            seed=seed,
            steps=steps,
            guidance_image=guidance_image,
            guidance_text=guidance_text,
            local_strength=local_strength,
            draws=draws,
            keep_visible=keep_visible,
            output="crop" if crop else "full",
            priority=priority,
        )
        completion = _watch(events, console(quiet=quiet))
    files = target.write(completion.samples)
    if json:
        print_json(_summary(completion, files))
    elif not quiet:
        _tell(completion, files, console())


def _watch(events: Iterable[Event], screen: Console) -> Completion:
    """The completion at the end of the events, with a bar while it is awaited."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=screen, transient=True, disable=screen.quiet or not screen.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)
        for event in events:
            match event:
                case Progress():
                    name = f"{STAGES[event.stage]}, step {event.step} of {event.steps}"
                    bar.update(task, completed=event.fraction, description=name)
                case Completion():
                    return event
    raise ServerError("the engine ended without a result")


def _summary(completion: Completion, files: list[str]) -> dict[str, object]:
    samples = [
        {
            "file": file,
            "seed": sample.seed,
            "score": sample.score,
            "box": sample.box.as_tuple(),
            "occluded_fraction": sample.occluded_fraction,
        }
        for sample, file in zip(completion.samples, files, strict=True)
    ]
    return {
        "samples": samples,
        "modal": {"score": completion.modal.score, "box": completion.modal.box.as_tuple()},
        "already_whole": completion.already_whole,
        "rim": completion.rim,
        "image_id": completion.image_id,
        "width": completion.width,
        "height": completion.height,
        "engine_id": completion.engine_id,
        "timings": dict(completion.timings),
    }


def _tell(completion: Completion, files: list[str], screen: Console) -> None:
    for sample, file in zip(completion.samples, files, strict=True):
        hidden = f"{sample.occluded_fraction:.0%} of it was hidden"
        screen.print(f"{file}: seed {sample.seed}, score {sample.score:.2f}, {hidden}", markup=False)
    if completion.already_whole:
        screen.print("The object seems to be whole already.")
