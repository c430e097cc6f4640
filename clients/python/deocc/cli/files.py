"""Where pictures come from and go to: files, folders, standard input and output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import typer

from deocc.images import ImageLike

__all__ = ["STANDARD", "Target", "read_photo"]

STANDARD = "-"
WITH_ALPHA = (".png", ".webp", ".tif", ".tiff")


class Picture(Protocol):
    """A sample or a mask."""

    @property
    def png(self) -> bytes: ...

    def save(self, path: Path) -> None: ...


def read_photo(name: str) -> ImageLike:
    """What the client takes as an image."""
    return sys.stdin.buffer.read() if name == STANDARD else name


class Target:
    """Where the pictures of one command go: "-", a folder, or a file name from which further ones are made.

    Args:
        output: as on the command line; a folder exists or ends with a slash.
        photo: as on the command line; its stem names the files in a folder.

    Raises:
        typer.BadParameter: it cannot work. Found out before the work, not after it.
    """

    def __init__(self, output: str, photo: str, *, json: bool) -> None:
        self._standard = output == STANDARD
        if self._standard and json:
            raise typer.BadParameter("standard output cannot take both the picture and --json", param_hint="-o")
        folder = output.endswith("/") or Path(output).is_dir()
        if folder:
            stem = "out" if photo == STANDARD else Path(photo).stem
            self._first = Path(output) / f"{stem}.png"
        else:
            self._first = Path(output)
        if self._standard:
            return
        if self._first.suffix.lower() not in WITH_ALPHA:
            raise typer.BadParameter(f"use one of {', '.join(WITH_ALPHA)}: they keep transparency", param_hint="-o")
        if folder:
            self._first.parent.mkdir(parents=True, exist_ok=True)
        elif not self._first.parent.is_dir():
            raise typer.BadParameter(f"there is no folder {self._first.parent}", param_hint="-o")
        if photo != STANDARD and self._first.exists() and Path(photo).exists() and self._first.samefile(photo):
            raise typer.BadParameter("this would overwrite the photo", param_hint="-o")

    def check_count(self, count: int) -> None:
        """Raises typer.BadParameter if so many pictures cannot go there."""
        if self._standard and count > 1:
            raise typer.BadParameter("standard output takes one picture only", param_hint="-o")

    def write(self, pictures: Sequence[Picture]) -> list[str]:
        """The names of the files, in the same order."""
        if self._standard:
            sys.stdout.buffer.write(pictures[0].png)
            sys.stdout.buffer.flush()
            return [STANDARD]
        paths = [self._first, *(self._numbered(index) for index in range(1, len(pictures)))]
        for picture, path in zip(pictures, paths, strict=True):
            picture.save(path)
        return [str(path) for path in paths]

    def _numbered(self, index: int) -> Path:
        return self._first.with_name(f"{self._first.stem}-{index}{self._first.suffix}")
