"""Which data set lies there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deocc_training.evaluation.example import Dataset, InvalidDataset
from deocc_training.evaluation.folder import Folder
from deocc_training.evaluation.instances import Instances
from deocc_training.evaluation.regions import Regions, read_annotations
from deocc_training.evaluation.synergy import Synergy
from deocc_training.evaluation.synthetic import Synthetic

__all__ = ["FORMATS", "open_dataset"]

FORMATS = ("cocoa", "instances", "synergy", "folder", "scenes")
ALIASES = {"bsdsa": "cocoa", "bsds-a": "cocoa", "mp3d-amodal": "cocoa", "kins": "instances"}


def open_dataset(path: Path, images: Path | None = None, form: str | None = None) -> Dataset:
    """The data set at `path`.

    Args:
        images: the folder of images, for annotation files; None: the annotations' own.
        form: one of FORMATS or ALIASES; None: by what is there.

    Raises:
        OSError: it cannot be read.
        InvalidDataset: it is none of these.
    """
    wanted = ALIASES.get((form or "").lower(), (form or "").lower())
    if wanted and wanted not in FORMATS:
        raise InvalidDataset(f"a data set's format is one of {', '.join((*FORMATS, *ALIASES))}", field="format")
    if path.is_dir():
        if wanted == "scenes" or (not wanted and (path / "meta.jsonl").is_file() and (path / "target.npy").is_file()):
            return Synthetic(path)
        if wanted in ("", "folder"):
            return Folder(path)
        raise InvalidDataset(f"{path} is a folder; name the annotation file, and the images with --images")
    whole, digest = read_annotations(path)
    found = wanted or _seen(whole)
    folder = images or path.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder of images")
    try:
        match found:
            case "cocoa":
                return Regions(whole if isinstance(whole, Mapping) else {"annotations": whole}, digest, folder)
            case "instances":
                return Instances(whole, digest, folder)
            case "synergy":
                return Synergy(whole, digest, folder, path.parent)
    except (AttributeError, KeyError, TypeError) as error:
        raise InvalidDataset(f"{path} is not in the format {found}: {error!r}") from error
    raise InvalidDataset(f"{path}: nobody knows this format; say --format")


def _seen(whole: Any) -> str:
    rows = whole.get("annotations") if isinstance(whole, Mapping) else whole
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        return ""
    if any("regions" in row for row in rows):
        return "cocoa"
    if isinstance(whole, Mapping):
        return "instances"
    return "synergy" if "filename" in rows[0] and "bbox" in rows[0] else ""
