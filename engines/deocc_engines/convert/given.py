"""Local files that a user names, sorted by what they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deocc_engines.convert.base import INDEX
from deocc_engines.convert.tensors import STEMS, weight_files
from deocc_engines.errors import InvalidOption, NotFound

__all__ = ["Given"]

FIELD = "from"


@dataclass(frozen=True)
class Given:
    """
    Attributes:
        base: a folder in diffusers' layout.
        checkpoints: Lightning's.
        sam: the files of SAM's weights.
    """

    base: Path | None
    checkpoints: tuple[Path, ...]
    sam: tuple[Path, ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Given:
        """Sorts folders (of the base, of SamModel, or of loose files) and files.

        Raises:
            NotFound: there is no such path.
            InvalidOption: a path is none of these, or there are two of a kind.
        """
        bases: list[Path] = []
        checkpoints: list[Path] = []
        sams: list[tuple[Path, ...]] = []
        for path in paths:
            if not path.exists():
                raise NotFound(f"there is no {path.name}", field=FIELD)
            if (path / INDEX).is_file():
                bases.append(path)
            elif path.is_dir() and any(file for stem in STEMS for file in path.glob(f"{stem}*.safetensors")):
                sams.append(weight_files(path, half=False))
            else:
                loose = sorted(path.iterdir()) if path.is_dir() else [path]
                found = [file for file in loose if file.suffix in (".ckpt", ".pth", ".safetensors")]
                if not found:
                    raise InvalidOption(
                        f"{path.name} is no base in diffusers' layout, no checkpoint and no weights of SAM", field=FIELD
                    )
                checkpoints += [file for file in found if file.suffix == ".ckpt"]
                sams += [(file,) for file in found if file.suffix != ".ckpt"]
        if len(bases) > 1 or len(sams) > 1:
            two = "bases" if len(bases) > 1 else "files of SAM's weights"
            raise InvalidOption(f"{two} are given twice; name one", field=FIELD)
        return cls(bases[0] if bases else None, tuple(checkpoints), sams[0] if sams else ())
