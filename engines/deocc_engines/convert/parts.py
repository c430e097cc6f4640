"""The two parts of a bundle, found but not yet written: a completer and a segmenter, published or of another bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from deocc_engines.bundle import Bundle
from deocc_engines.convert.anything import Completer
from deocc_engines.convert.component import Component
from deocc_engines.convert.provenance import PartName, Source, borrowed

__all__ = ["BorrowedPart", "Part", "PublishedCompleter", "PublishedSegmenter"]

FOLDERS: dict[PartName, tuple[str, ...]] = {  # where they are: some are optional
    "completer": ("tokenizer", "text_encoder", "vae", "unet", "mask_decoder", "refiner"),
    "segmenter": ("sam", "mask_refiner"),
}
OWN = ("schema", "name", "licence", "commercial_use", "sources", "files")  # of a manifest: about the bundle as a whole


class Part(Protocol):
    """Writes itself into a bundle's folder."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest says of it."""

    def write(self, folder: Path, dtype: torch.dtype, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Gives the manifest's entries on its sources."""


@dataclass(frozen=True)
class BorrowedPart:
    """Another bundle's, copied as it is."""

    name: PartName
    donor: Bundle

    @property
    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in self.donor.manifest.items() if key not in OWN}

    def write(self, folder: Path, dtype: torch.dtype, say: Callable[[str], None]) -> list[dict[str, Any]]:
        say(f"copying the {self.name} of {self.donor.engine_id}")
        self.donor.check()
        for name in filter(self.donor.holds, FOLDERS[self.name]):
            shutil.copytree(self.donor.path / name, folder / name)
        return borrowed(self.name, self.donor)


@dataclass(frozen=True)
class PublishedCompleter:
    """DeoccAnything's."""

    completer: Completer
    checkpoints: Source
    base: Source

    @property
    def settings(self) -> dict[str, Any]:
        return self.completer.settings

    def write(self, folder: Path, dtype: torch.dtype, say: Callable[[str], None]) -> list[dict[str, Any]]:
        read = self.completer.write(folder, dtype, say)
        say("hashing what was read")
        return [
            self.checkpoints.entry("completer", self.completer.checkpoints),
            self.base.entry("completer", read),
        ]


@dataclass(frozen=True)
class PublishedSegmenter:
    """A SAM."""

    component: Component
    source: Source

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def write(self, folder: Path, dtype: torch.dtype, say: Callable[[str], None]) -> list[dict[str, Any]]:
        say("converting sam")
        self.component.write(folder, dtype)
        return [self.source.entry("segmenter", self.component.files)]
