"""What comes back: frozen values that hold the service's own bytes and decode them when asked."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image

from deocc.errors import ServerError
from deocc.v1 import deocclusion_pb2 as v1

__all__ = ["Box", "Completion", "ModalMask", "Sample", "Segmentation", "UploadedImage"]


@dataclass(frozen=True)
class UploadedImage:
    """An image that the service keeps for a while."""

    image_id: str  # "sha256:" and the hash of the encoded bytes
    width: int  # pixels, upright
    height: int
    expires_in_seconds: int  # kept at least so long, counted from the upload

    @classmethod
    def from_message(cls, message: v1.UploadImageResponse) -> UploadedImage:
        return cls(message.image_id, message.size.width, message.size.height, message.expires_in_seconds)


@dataclass(frozen=True)
class Box:
    """Half-open, xy in pixels of the upright image, origin top left."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @classmethod
    def from_message(cls, message: v1.Box) -> Box:
        return cls(message.x_min, message.y_min, message.x_max, message.y_max)

    def as_tuple(self) -> tuple[float, float, float, float]:
        return (self.x_min, self.y_min, self.x_max, self.y_max)


@dataclass(frozen=True)
class ModalMask:
    """The visible part of one object.

    Attributes:
        png: one channel, 8 bit, the size of the image, exactly as sent.
        score: predicted IoU in [0, 1]; 1 for a mask that the caller gave.
        box: of the mask.
    """

    png: bytes = field(repr=False)
    score: float
    box: Box

    @classmethod
    def from_message(cls, message: v1.ModalMask) -> ModalMask:
        return cls(_png_of(message.mask), message.score, Box.from_message(message.box))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """[h, w], decoded at every access."""
        return _decode_mask(self.png)

    @property
    def image(self) -> Image.Image:
        """Grey, 255 inside; a new picture at every access."""
        return _decode(self.png)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the PNG as sent, or another format by the path's suffix."""
        _save(self.png, path)

    def _repr_png_(self) -> bytes:
        return self.png


@dataclass(frozen=True)
class Sample:
    """One completed object.

    Attributes:
        png: RGBA with straight alpha, exactly as sent; the size of the image, or of `box` if a crop was asked for.
        mask_png: the amodal mask: one channel, 8 bit.
        box: of the amodal mask.
        seed: completing again with this seed and one sample gives this sample again.
        score: in [0, 1], computed without ground truth.
        occluded_fraction: the hidden share of the amodal mask, in [0, 1].
    """

    png: bytes = field(repr=False)
    mask_png: bytes = field(repr=False)
    box: Box
    seed: int
    score: float
    occluded_fraction: float

    @classmethod
    def from_message(cls, message: v1.Sample) -> Sample:
        return cls(
            message.rgba_png,
            _png_of(message.amodal_mask),
            Box.from_message(message.box),
            message.seed,
            message.score,
            message.occluded_fraction,
        )

    @property
    def image(self) -> Image.Image:
        """RGBA; a new picture at every access."""
        return _decode(self.png)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The complete shape, [h, w], decoded at every access."""
        return _decode_mask(self.mask_png)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the PNG as sent, or another format by the path's suffix.

        Raises:
            OSError: the path cannot be written, or its format has no alpha (JPEG).
        """
        _save(self.png, path)

    def _repr_png_(self) -> bytes:
        return self.png


@dataclass(frozen=True)
class Segmentation:
    """Candidate modal masks of one prompt, best first."""

    candidates: tuple[ModalMask, ...]
    image_id: str
    width: int  # pixels, upright
    height: int
    engine_id: str
    timings: Mapping[str, float]  # seconds by stage

    @classmethod
    def from_message(cls, message: v1.SegmentResponse) -> Segmentation:
        if not message.candidates:
            raise ServerError("the service answered without a single candidate")
        return cls(
            tuple(ModalMask.from_message(candidate) for candidate in message.candidates),
            message.image_id,
            message.size.width,
            message.size.height,
            message.engine_id,
            _seconds(message.timings),
        )

    @property
    def best(self) -> ModalMask:
        return self.candidates[0]

    def _repr_png_(self) -> bytes:
        return self.best.png


@dataclass(frozen=True)
class Completion:
    """All samples of one request, best first; what is asked of it directly is the best sample's.

    Attributes:
        modal: the visible part that was completed.
        already_whole: the object seems not to be occluded at all.
        width, height: of the upright image, in pixels.
        timings: seconds by stage.
        rim: width in pixels of the feathered rim inside the modal mask: deeper inside, the pixels equal the input's.
    """

    samples: tuple[Sample, ...]
    modal: ModalMask
    already_whole: bool
    image_id: str
    width: int
    height: int
    engine_id: str
    timings: Mapping[str, float]
    rim: int

    @classmethod
    def from_message(cls, message: v1.CompleteResponse) -> Completion:
        if not message.samples:
            raise ServerError("the service answered without a single sample")
        return cls(
            tuple(Sample.from_message(sample) for sample in message.samples),
            ModalMask.from_message(message.modal),
            message.already_whole,
            message.image_id,
            message.size.width,
            message.size.height,
            message.engine_id,
            _seconds(message.timings),
            message.rim,
        )

    @property
    def best(self) -> Sample:
        return self.samples[0]

    @property
    def png(self) -> bytes:
        return self.best.png

    @property
    def image(self) -> Image.Image:
        return self.best.image

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        return self.best.mask

    @property
    def seed(self) -> int:
        return self.best.seed

    @property
    def score(self) -> float:
        return self.best.score

    @property
    def box(self) -> Box:
        return self.best.box

    @property
    def occluded_fraction(self) -> float:
        return self.best.occluded_fraction

    def save(self, path: str | os.PathLike[str]) -> None:
        self.best.save(path)

    def _repr_png_(self) -> bytes:
        return self.best.png


def _png_of(mask: v1.Mask) -> bytes:
    if mask.WhichOneof("encoding") != "png":  # the client asks for PNG in every request
        raise ServerError("the service answered with a mask that is not a PNG")
    return mask.png


def _decode(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png), formats=("PNG",))
    picture.load()
    return picture


def _decode_mask(png: bytes) -> npt.NDArray[np.bool_]:
    return np.asarray(_decode(png).convert("L")) > 127


def _save(png: bytes, path: str | os.PathLike[str]) -> None:
    target = Path(path)
    if target.suffix.lower() in ("", ".png"):
        target.write_bytes(png)  # untouched, so that equal seeds stay equal files
    else:
        _decode(png).save(target)


def _seconds(timings: v1.Timings) -> Mapping[str, float]:
    return MappingProxyType(dict(timings.seconds))
