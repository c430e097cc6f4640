"""Wire messages to the engines' values and back. Everything here is pure and may run in a worker thread."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines import completion, mask, prompt
from deocc_engines.errors import InvalidOption, InvalidPrompt
from deocc_engines.image import encode_png
from deocc_engines.limits import Limits

if TYPE_CHECKING:
    from deocc_engines.bundle import EngineInfo

__all__ = ["ResultWriter", "engine_to_wire", "mask_to_wire", "modal_from_wire", "modal_to_wire", "options_from_wire"]
__all__ += ["check_enums", "prompt_from_wire", "size_to_wire"]

Told = completion.Progress | completion.ModalMask | completion.Preview | completion.SampleReady
STAGES = {
    completion.Stage.SEGMENT: pb.STAGE_SEGMENT,
    completion.Stage.GLOBAL: pb.STAGE_GLOBAL,
    completion.Stage.LOCAL: pb.STAGE_LOCAL,
}
OPTIONAL: Final = ("num_samples", "steps", "guidance_image", "guidance_text", "local_strength", "draws", "keep_visible")
PRIORITIES = {
    pb.PRIORITY_UNSPECIFIED: completion.Priority.NORMAL,
    pb.PRIORITY_LOW: completion.Priority.LOW,
    pb.PRIORITY_NORMAL: completion.Priority.NORMAL,
    pb.PRIORITY_HIGH: completion.Priority.HIGH,
}


def prompt_from_wire(message: pb.Prompt, width: int, height: int) -> prompt.Prompt:
    """The prompt for an upright image of this size.

    Raises:
        InvalidPrompt: a label or a mask encoding that does not exist, or a mask that does not fit.
    """
    for index, point in enumerate(message.points):
        if point.label not in pb.PointLabel.values():
            raise InvalidPrompt("no such label", field=f"prompt.points[{index}].label")
    points = tuple(prompt.Point(p.x, p.y, p.label != pb.POINT_LABEL_EXCLUDE) for p in message.points)
    box = message.box
    return prompt.Prompt(
        points=points,
        box=prompt.Box(box.x_min, box.y_min, box.x_max, box.y_max) if message.HasField("box") else None,
        mask=mask_from_wire(message.mask, width, height) if message.HasField("mask") else None,
    )


def mask_from_wire(message: pb.Mask, width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """A mask of this size; raises InvalidPrompt."""
    match message.WhichOneof("encoding"):
        case "png":
            return mask.decode_png(message.png, width, height)
        case "rle":
            rle = message.rle
            return mask.decode_rle(rle.counts, rle.width, rle.height, width, height)
    raise InvalidPrompt("give the mask as png or rle", field="prompt.mask")


def mask_to_wire(pixels: Bool[np.ndarray, "h w"], encoding: pb.MaskEncoding.ValueType) -> pb.Mask:
    """PNG unless run lengths are asked for."""
    if encoding == pb.MASK_ENCODING_RLE:
        height, width = pixels.shape
        return pb.Mask(rle=pb.RunLengthMask(width=width, height=height, counts=mask.encode_rle(pixels)))
    return pb.Mask(png=mask.mask_to_png(pixels))


def box_to_wire(box: prompt.Box) -> pb.Box:
    """Half-open, pixels of the image."""
    return pb.Box(x_min=box.x_min, y_min=box.y_min, x_max=box.x_max, y_max=box.y_max)


def size_to_wire(width: int, height: int) -> pb.ImageSize:
    """Pixels."""
    return pb.ImageSize(width=width, height=height)


def modal_to_wire(modal: completion.ModalMask, encoding: pb.MaskEncoding.ValueType) -> pb.ModalMask:
    """A modal mask as the caller wants it encoded."""
    return pb.ModalMask(mask=mask_to_wire(modal.mask, encoding), score=modal.score, box=box_to_wire(modal.box))


def modal_from_wire(message: pb.ModalMask, width: int, height: int) -> completion.ModalMask:
    """What `modal_to_wire` wrote, for an image of this size."""
    box = prompt.Box(message.box.x_min, message.box.y_min, message.box.x_max, message.box.y_max)
    return completion.ModalMask(mask_from_wire(message.mask, width, height), message.score, box)


def check_enums(mask_encoding: int, output: int = pb.OUTPUT_UNSPECIFIED, *, at: str = "") -> None:
    """Raises InvalidOption for numbers that the contract does not name; proto3 lets them pass."""
    if mask_encoding not in pb.MaskEncoding.values():
        raise InvalidOption("no such mask encoding", field=f"{at}mask_encoding")
    if output not in pb.Output.values():
        raise InvalidOption("no such output", field=f"{at}output")


def options_from_wire(request: pb.CompleteStreamRequest, limits: Limits) -> completion.CompletionOptions:
    """Checked options; the seed must be set.

    Raises:
        InvalidOption, TooLarge: out of range.
    """
    message = request.options
    check_enums(message.mask_encoding, message.output, at="options.")
    if message.priority not in PRIORITIES:
        raise InvalidOption("no such priority", field="options.priority")
    given = {name: getattr(message, name) for name in OPTIONAL if message.HasField(name)}
    options = completion.CompletionOptions(
        text=message.text,
        preset=message.preset,
        seed=message.seed,
        preview_every=request.preview_every,
        priority=PRIORITIES[message.priority],
        **given,
    )
    options.check(limits)
    return options


class ResultWriter:
    """Writes the events and the result of one completion; each sample is encoded once."""

    def __init__(self, options: pb.CompleteOptions) -> None:
        self._encoding = options.mask_encoding
        self._crop = options.output == pb.OUTPUT_CROP
        self._encoded: dict[int, tuple[bytes, pb.Mask]] = {}  # by seed

    def event(self, event: Told) -> pb.CompleteStreamResponse:
        """One message of the stream."""
        match event:
            case completion.Progress():
                progress = pb.Progress(
                    stage=STAGES[event.stage],
                    sample=event.sample,
                    step=event.step,
                    steps=event.steps,
                    fraction=event.fraction,
                )
                return pb.CompleteStreamResponse(progress=progress)
            case completion.ModalMask():
                return pb.CompleteStreamResponse(modal=modal_to_wire(event, self._encoding))
            case completion.Preview():
                png = encode_png(event.rgba)
                preview = pb.Preview(sample=event.sample, rgba_png=png, box=box_to_wire(event.box))
                return pb.CompleteStreamResponse(preview=preview)
            case completion.SampleReady():
                return pb.CompleteStreamResponse(sample=self._sample(event.sample))

    def result(self, result: completion.Completion) -> pb.CompleteResponse:
        """The last message, without what only the service knows: image, engine, timings of its own."""
        return pb.CompleteResponse(
            samples=[self._sample(sample) for sample in result.samples],
            modal=modal_to_wire(result.modal, self._encoding),
            already_whole=result.already_whole,
            rim=result.rim,
            timings=pb.Timings(seconds=result.seconds),
        )

    def _sample(self, sample: completion.Sample) -> pb.Sample:
        if sample.seed not in self._encoded:
            pixels = sample.cropped() if self._crop else sample.rgba()
            self._encoded[sample.seed] = encode_png(pixels), mask_to_wire(sample.amodal_mask(), self._encoding)
        png, amodal = self._encoded[sample.seed]
        return pb.Sample(
            rgba_png=png,
            amodal_mask=amodal,
            box=box_to_wire(sample.box),
            seed=sample.seed,
            score=sample.score,
            occluded_fraction=sample.occluded_fraction,
        )


def engine_to_wire(info: EngineInfo, limits: Limits, *, is_default: bool) -> pb.Engine:
    """What callers may know of an engine: not its path."""
    name, preset = next(iter(info.presets.items()))
    return pb.Engine(
        engine_id=info.engine_id,
        name=info.name,
        licence=info.licence,
        commercial_use=info.commercial_use,
        runtimes=info.runtimes,
        is_default=is_default,
        window=info.window,
        presets={name: pb.CompleteOptions(**asdict(preset)) for name, preset in info.presets.items()},
        defaults=pb.CompleteOptions(
            **asdict(preset),
            preset=name,
            num_samples=1,
            keep_visible=True,
            output=pb.OUTPUT_FULL,
            mask_encoding=pb.MASK_ENCODING_PNG,
        ),
        limits=pb.Limits(
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
            max_points=limits.max_points,
            max_samples=limits.max_samples,
            max_steps=limits.max_steps,
            max_draws=limits.max_draws,
            max_text_characters=limits.max_text_characters,
        ),
    )
