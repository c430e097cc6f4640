"""A plain folder: one folder an example, or one folder a kind of picture.

::

    cup/image.jpg   cup/modal.png   cup/amodal.png   cup/rgba.png      (the last one only where it is known)
    image/cup.jpg   modal/cup.png   amodal/cup.png   rgba/cup.png      (the same the other way round)

Masks are bright inside. `front.png`, if there, says where something stands in front of the object.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from deocc_training.evaluation.example import Example, InvalidDataset, Unfit
from deocc_training.evaluation.pictures import SUFFIXES, read_mask, read_photo, read_rgba, size_of

__all__ = ["Folder"]

KINDS = ("image", "modal", "amodal", "rgba", "front")


class Folder:
    """Examples in the order of their names."""

    def __init__(self, folder: Path) -> None:
        self._examples: dict[str, dict[str, Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in SUFFIXES:
                continue
            relative = path.relative_to(folder)
            if relative.parts[0] in KINDS and len(relative.parts) > 1:
                kind, name = relative.parts[0], str(Path(*relative.parts[1:]).with_suffix(""))
            elif path.stem in KINDS and len(relative.parts) > 1:
                kind, name = path.stem, str(relative.parent)
            else:
                continue
            self._examples.setdefault(name, {})[kind] = path
        self._examples = dict(sorted((name, files) for name, files in self._examples.items() if "amodal" in files))
        if not self._examples:
            raise InvalidDataset(f"{folder} holds no examples: give image, modal and amodal pictures")
        self.keys = list(self._examples)

    def load(self, index: int) -> Example:
        """See Dataset."""
        files = self._examples[self.keys[index]]
        missing = [kind for kind in ("image", "modal") if kind not in files]
        if missing:
            raise Unfit(f"{' and '.join(missing)} missing")
        content, pixels = read_photo(files["image"], *size_of(files["image"]))
        modal = read_mask(files["modal"])
        return Example(
            key=self.keys[index],
            image=hashlib.sha256(content).hexdigest()[:16],  # one photo may come with several objects
            content=content,
            pixels=pixels,
            modal=modal,
            amodal=read_mask(files["amodal"]),
            front=read_mask(files["front"]) if "front" in files else np.zeros_like(modal),
            truth=read_rgba(files["rgba"]) if "rgba" in files else None,
        )

    def description(self) -> dict[str, Any]:
        """See Dataset."""
        names = hashlib.sha256("\n".join(self.keys).encode()).hexdigest()
        return {"format": "folder", "names_sha256": names, "examples": len(self.keys)}
