"""Where prior images lie and what stands beside them.

Priors of the sample "scene/view" are `<root>/<folder>/scene/view/prior_00.png`, `prior_01.png` …, zero-padded so that
their names sort in the order of their seeds; RGBA the size of the photo, alpha exactly 0 outside the object, because
RelaxFlow takes every pixel with alpha > 0 for the object. `priors.json` beside them says how they were made; it is
written last, so that its presence says that the sample is finished.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deocc.batch.draw import Drawn
from deocc.batch.manifest import Manifest
from deocc.errors import InvalidInput
from deocc.images import mask_png
from deocc.results import Sample

__all__ = ["MANIFEST", "Layout", "prior_png"]

MANIFEST = "manifest_with_priors.json"
SIDECAR = "priors.json"


@dataclass(frozen=True)
class Layout:
    """Names and contents of the files of one run.

    Attributes:
        root: the data set's folder.
        folder: of the priors, inside the root: both of RelaxFlow's conventions for paths, relative to the data set's
            root and relative to the manifest, mean the same file only there.
        count: priors of each sample.
        masks: write the amodal masks, too.

    Raises:
        InvalidInput: the folder is not inside the root.
    """

    root: Path
    folder: str
    count: int
    masks: bool = False

    def __post_init__(self) -> None:
        inside = (self.root / self.folder).resolve()
        if not inside.is_relative_to(self.root.resolve()) or inside == self.root.resolve():
            raise InvalidInput(f"the priors' folder must lie inside the data set {self.root}", field="out")

    def of(self, sample: str) -> Path:
        """The folder of one sample.

        Raises:
            InvalidInput: it would lie elsewhere, by a link that stands in the way.
        """
        folder = self.root / self.folder / sample
        if not folder.resolve().is_relative_to((self.root / self.folder).resolve()):
            raise InvalidInput(f"{sample}: its folder would lie outside {self.root / self.folder}")
        return folder

    def names(self, kind: str = "prior") -> list[str]:
        digits = max(2, len(str(self.count - 1)))
        return [f"{kind}_{index:0{digits}}.png" for index in range(self.count)]

    def finished(self, sample: str, request: str) -> bool:
        """True if these very priors lie there, whole."""
        folder = self.of(sample)
        try:
            made = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
            named = {entry["file"]: entry["sha256"] for entry in made["priors"]}
            if self.masks:
                named |= {entry["mask"]: entry["mask_sha256"] for entry in made["priors"]}
            expected = {*self.names(), *(self.names("mask") if self.masks else ())}
            return (
                made["request"] == request
                and set(named) == expected
                and all(_sha256((folder / file).read_bytes()) == digest for file, digest in named.items())
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write(self, sample: str, request: str, drawn: Drawn, about: Mapping[str, Any]) -> None:
        """The priors of one sample, and then their sidecar."""
        folder = self.of(sample)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SIDECAR).unlink(missing_ok=True)
        priors: list[dict[str, Any]] = []
        masks = self.names("mask") if self.masks else [None] * self.count
        for found, file, mask in zip(drawn.samples, self.names(), masks, strict=True):
            png = prior_png(found)
            _replace(folder / file, png)
            entry = {"file": file, "sha256": _sha256(png), "seed": found.seed, "score": found.score}
            entry |= {"occluded_fraction": found.occluded_fraction, "box": found.box.as_tuple()}
            if mask is not None:
                grey = mask_png(found.mask)
                _replace(folder / mask, grey)
                entry |= {"mask": mask, "mask_sha256": _sha256(grey)}
            priors.append(entry)
        sidecar = {
            "id": sample,
            "request": request,
            "engine_id": drawn.engine_id,
            **about,
            "already_whole": drawn.already_whole,
            "best": drawn.best,
            "priors": priors,
            "seconds": round(drawn.seconds, 3),
        }
        _replace(folder / SIDECAR, (json.dumps(sidecar, indent=1, ensure_ascii=False) + "\n").encode())

    def write_manifest(self, manifest: Manifest, finished: Sequence[str]) -> Path:
        """The manifest again, in its own form (lines become a list), with `prior_images` where they are finished."""
        have = set(finished)
        rows = []
        for entry in manifest.entries:
            row = {key: value for key, value in entry.row.items() if key not in ("prior_images", "prior_masks")}
            if entry.id in have:
                row["prior_images"] = [f"{self.folder}/{entry.id}/{name}" for name in self.names()]
                if self.masks:
                    row["prior_masks"] = [f"{self.folder}/{entry.id}/{name}" for name in self.names("mask")]
            rows.append(row)
        whole: Any = {**manifest.around, "samples": rows} if manifest.form == "samples" else rows
        target = self.root / MANIFEST
        _replace(target, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())
        return target


def prior_png(sample: Sample) -> bytes:
    """RGBA; where the amodal mask is not, alpha and colours are exactly 0."""
    rgba = np.array(sample.image.convert("RGBA"))
    rgba[~sample.mask] = 0
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, format="PNG")
    return out.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all, also when the process is killed or the machine loses power."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
