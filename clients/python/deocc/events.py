"""What a streamed completion tells on its way."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from PIL import Image

from deocc.results import Box, Completion, ModalMask, Sample
from deocc.v1 import deocclusion_pb2 as v1

__all__ = ["Event", "Preview", "Progress", "Stage", "event_from_message"]


class Stage(StrEnum):
    """Where a completion stands."""

    SEGMENT = "segment"
    GLOBAL = "global"
    LOCAL = "local"


_STAGES = {v1.STAGE_SEGMENT: Stage.SEGMENT, v1.STAGE_GLOBAL: Stage.GLOBAL, v1.STAGE_LOCAL: Stage.LOCAL}


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` done in this stage of this sample; `fraction` in [0, 1] of the whole request."""

    stage: Stage
    sample: int  # index, from 0
    step: int
    steps: int
    fraction: float


@dataclass(frozen=True)
class Preview:
    """A small RGBA picture of the current estimate; `box` is where it lies in the image."""

    sample: int  # index, from 0
    png: bytes = field(repr=False)
    box: Box

    @property
    def image(self) -> Image.Image:
        picture = Image.open(io.BytesIO(self.png), formats=("PNG",))
        picture.load()
        return picture

    def _repr_png_(self) -> bytes:
        return self.png


Event: TypeAlias = Progress | Preview | ModalMask | Sample | Completion
"""Progress and previews, the modal mask once, each sample when it is ready, the completion last."""


def event_from_message(message: v1.CompleteStreamResponse) -> Event | None:
    """None for an event that is newer than this client. Raises ServerError for one without what it must hold."""
    match message.WhichOneof("event"):
        case "progress":
            progress = message.progress
            stage = _STAGES.get(progress.stage)
            if stage is None:
                return None
            return Progress(stage, progress.sample, progress.step, progress.steps, progress.fraction)
        case "preview":
            return Preview(message.preview.sample, message.preview.rgba_png, Box.from_message(message.preview.box))
        case "modal":
            return ModalMask.from_message(message.modal)
        case "sample":
            return Sample.from_message(message.sample)
        case "result":
            return Completion.from_message(message.result)
    return None
