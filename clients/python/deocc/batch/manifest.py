"""What is to be completed: ExtremeOcc-3D's manifest in all its forms, CSV and JSONL lists, COCO annotation files.

A manifest of any form becomes entries with the same fields. Paths in it are relative to the data set's root, which is
the manifest's own folder unless another one is named, and may not leave it. Nothing is asked of a service before every
entry has been checked, and every fault is reported with its sample's id.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from deocc.errors import InvalidInput, TooLarge

__all__ = ["Entry", "InvalidManifest", "Manifest", "Problem", "read_manifest"]

Form = Literal["list", "samples", "jsonl", "csv", "coco"]

FILES = ("image", "mask", "obs_object_image")  # must exist
OPTIONAL_FILES = ("gt_render_dir", "gt_mesh")  # for evaluation: may be missing, but may not lead elsewhere
TEXTS = ("prior_text", "text")
PROMPTS = ("points", "box")
WRITTEN = ("prior_images", "prior_masks")  # by an earlier run; written anew
KNOWN = frozenset({"id", *FILES, *OPTIONAL_FILES, *TEXTS, *PROMPTS, *WRITTEN})
MAX_MANIFEST = 2**30  # bytes
# A segment of an id becomes a folder, beside which files with these endings are written.
SEGMENT = re.compile(r"(?!\.{1,2}$)[^\x00-\x1f\\/:*?\"<>|]{1,200}(?<!\.png)(?<!\.json)")
SHOWN = 20  # problems in the message; the error holds all of them


@dataclass(frozen=True)
class Problem:
    """What is wrong with one entry."""

    sample: str  # its id, or where it stands if it has none
    message: str

    def __str__(self) -> str:
        return f"{self.sample}: {self.message}"


class InvalidManifest(InvalidInput):
    """The manifest cannot be worked on as it stands; nothing has been done.

    Attributes:
        problems: all of them, in the manifest's order.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = [str(problem) for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"… and {len(problems) - SHOWN} more")
        super().__init__("\n  ".join([f"the manifest has {len(problems)} problem(s):", *lines]))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Entry:
    """One object to complete.

    Attributes:
        id: unique; its segments between slashes become folders.
        image: of the photo.
        mask: of the picture of what is visible, or a COCO segmentation; None: `points` and `box` say it.
        points: (x, y) or (x, y, label) in pixels of the upright image.
        box: half-open.
        text: what the object is.
        row: as it stood in the manifest.
    """

    id: str
    image: Path
    mask: Path | Mapping[str, Any] | list[Any] | None
    points: tuple[tuple[float, ...], ...] = ()
    box: tuple[float, ...] | None = None
    text: str = ""
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Manifest:
    """A manifest whose entries are well-formed; their pictures have not been looked at yet.

    Attributes:
        root: the data set's folder.
        around: the other keys of a {"samples": […]} manifest.
    """

    root: Path
    form: Form
    entries: tuple[Entry, ...]
    around: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(path: Path, root: Path | None = None, *, allow_unknown: bool = False) -> Manifest:
    """Reads and checks a manifest.

    Args:
        root: the folder that paths are relative to; None: the manifest's.
        allow_unknown: keep fields that are not known instead of refusing them.

    Raises:
        OSError: a file cannot be read.
        InvalidManifest: a row is malformed, a file is missing, a path leads elsewhere, an id comes twice.
        InvalidInput: the file is no manifest at all.
    """
    if path.stat().st_size > MAX_MANIFEST:
        raise TooLarge(f"the manifest is larger than {MAX_MANIFEST} bytes")
    folder = path.parent if root is None else root
    form, rows, around = _rows(path)
    if form == "coco":
        from deocc.batch.annotations import annotated_entries

        return Manifest(folder, form, annotated_entries(around, folder))
    problems: list[Problem] = []
    entries = [entry for entry in (_entry(*row, folder, allow_unknown, problems) for row in _named(rows)) if entry]
    problems += _doubles([str(row.get("id")) for row in rows if isinstance(row, Mapping) and "id" in row])
    if not rows:
        problems.append(Problem(str(path), "it has no entries"))
    if problems:
        raise InvalidManifest(problems)
    return Manifest(folder, form, tuple(entries), around)


def _rows(path: Path) -> tuple[Form, list[Any], Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text") from error
    if path.suffix.lower() in (".csv", ".tsv"):
        return "csv", _table(text, "\t" if path.suffix.lower() == ".tsv" else ","), {}
    try:
        whole = json.loads(text)
    except ValueError as error:
        return "jsonl", _lines(path, text, error), {}
    match whole:
        case list():
            return "list", whole, {}
        case {"samples": list() as samples}:
            return "samples", samples, {key: value for key, value in whole.items() if key != "samples"}
        case {"images": list(), "annotations": list()}:
            return "coco", [], whole
        case {"id": _}:
            return "jsonl", [whole], {}
    raise InvalidInput(f'{path} is neither a list, nor {{"samples": […]}}, nor JSON lines, nor COCO annotations')


def _table(text: str, delimiter: str) -> list[Any]:
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter, restkey="(too many columns)")
    return [{name: value for name, value in row.items() if value not in ("", None)} for row in rows]


def _lines(path: Path, text: str, whole: ValueError) -> list[Any]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows: list[Any] = []
    problems: list[Problem] = []
    for number, line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            problems.append(Problem(f"line {number}", f"not JSON: {error}"))
    if not rows:
        raise InvalidInput(f"{path} is not JSON: {whole}") from whole
    if problems:
        raise InvalidManifest(problems)
    return rows


def _named(rows: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(rows, 1):
        named = isinstance(row, Mapping) and isinstance(row.get("id"), str) and row["id"]
        yield row["id"] if named else f"entry {number}", row


def _doubles(ids: Sequence[str]) -> list[Problem]:
    return [Problem(name, f"the id comes {count} times") for name, count in Counter(ids).items() if count > 1]


def _entry(name: str, row: Any, root: Path, allow_unknown: bool, problems: list[Problem]) -> Entry | None:
    """The entry of a row, or None with its problems added."""
    if not isinstance(row, Mapping):
        problems.append(Problem(name, "an entry is an object"))
        return None
    found = [*_misnamed(row), *(() if allow_unknown else _unknown(row)), *_misplaced(row, root)]
    points: tuple[tuple[float, ...], ...] = ()
    box, text = None, ""
    try:
        points, box, text = _points(row.get("points")), _box(row.get("box")), _text(row)
    except ValueError as error:
        found.append(str(error))
    if "mask" in row and (points or box):
        found.append("a mask stands alone; leave out points and box")
    if "mask" not in row and not (points or box):
        found.append("the field mask is missing")
    if "image" not in row:
        found.append("the field image is missing")
    if found:
        problems.extend(Problem(name, message) for message in found)
        return None
    mask = root / row["mask"] if "mask" in row else None
    return Entry(name, root / row["image"], mask, points, box, text, row)


def _misnamed(row: Mapping[str, Any]) -> Iterator[str]:
    name = row.get("id")
    if not isinstance(name, str) or not name:
        yield "the field id is missing or not a text"
    elif not all(SEGMENT.fullmatch(segment) for segment in name.split("/")):
        yield f"the id {name!r} cannot be a path of folders"


def _unknown(row: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"unknown field {name!r}" for name in row if name not in KNOWN)


def _misplaced(row: Mapping[str, Any], root: Path) -> Iterator[str]:
    for name in (*FILES, *OPTIONAL_FILES):
        if name not in row:
            continue
        value = row[name]
        if not isinstance(value, str) or not value or "\x00" in value:
            yield f"{name} is not a path"
            continue
        path = PurePosixPath(value.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", value):
            yield f"{name} leads out of the data set: {value}"
        elif name in FILES and not (root / value).is_file():
            yield f"{name} is missing: {value}"


def _text(row: Mapping[str, Any]) -> str:
    for name in TEXTS:
        if row.get(name) is not None:
            if not isinstance(row[name], str):
                raise ValueError(f"{name} is not a text")
            return str(row[name])
    return ""


def _points(value: Any) -> tuple[tuple[float, ...], ...]:
    """From [[x, y], [x, y, label]], or "x,y;x,y,label" in a table."""
    if value is None:
        return ()
    rows = [part.split(",") for part in value.split(";")] if isinstance(value, str) else value
    try:
        points = tuple(tuple(float(number) for number in row) for row in rows)
    except (TypeError, ValueError) as error:
        raise ValueError('points are [[x, y], …], or "x,y;x,y,label"') from error
    if not points or any(len(point) not in (2, 3) for point in points):
        raise ValueError('points are [[x, y], …], or "x,y;x,y,label"')
    return points


def _box(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        box = tuple(float(number) for number in (value.split(",") if isinstance(value, str) else value))
    except (TypeError, ValueError) as error:
        raise ValueError("a box is four numbers") from error
    if len(box) != 4:
        raise ValueError("a box is four numbers")
    return box
