"""Where the parts of a bundle come from, and under which licences: the manifest's `sources`, and the words for users.

::

    {"part": "completer" | "segmenter",
     "repository": hub id, or null of local files,   "revision": commit, or null,
     "files": [{"name", "sha256", "size"}],
     "licence", "licence_url", "commercial_use",     "licence_accepted": day, UTC}

A part that was taken from another bundle keeps that bundle's entries; from one without entries:
``{"part", "bundle": engine id, "licence", "commercial_use"}``.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deocc_engines.bundle import Bundle, sha256_of
from deocc_engines.convert.published import Repository
from deocc_engines.errors import InvalidOption

__all__ = ["PartName", "Source", "agree", "borrowed", "card", "licence_of"]

PartName = Literal["completer", "segmenter"]


@dataclass(frozen=True)
class Source:
    """Files of one repository on this machine.

    Attributes:
        revision: commit; None of files that the user gave.
        root: what the recorded names are relative to; None: their names alone.
    """

    repository: Repository
    revision: str | None
    root: Path | None

    def entry(self, part: PartName, files: Iterable[Path]) -> dict[str, Any]:
        """What the manifest says of the files that were read."""
        licence = self.repository.licence
        return {
            "part": part,
            "repository": self.repository.hub_id if self.revision else None,
            "revision": self.revision,
            "files": [
                {
                    "name": file.relative_to(self.root).as_posix() if self.root else file.name,
                    "sha256": sha256_of(file),
                    "size": file.stat().st_size,
                }
                for file in files
            ],
            "licence": licence.name,
            "licence_url": licence.url,
            "commercial_use": licence.commercial_use,
            "licence_accepted": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }


def borrowed(part: PartName, bundle: Bundle) -> list[dict[str, Any]]:
    """The entries of a part that is taken from another bundle."""
    entries: list[dict[str, Any]] = [e for e in bundle.manifest.get("sources", ()) if e.get("part") == part]
    if entries:
        return entries
    info = bundle.info()
    own = {"bundle": bundle.engine_id, "licence": info.licence, "commercial_use": info.commercial_use}
    return [{"part": part, **own}]


def licence_of(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The whole bundle's licence, as an SPDX expression, and whether it may be used commercially."""
    names = dict.fromkeys(entry["licence"] for entry in entries)
    return {"licence": " AND ".join(names), "commercial_use": all(entry["commercial_use"] for entry in entries)}


def agree(repositories: Sequence[Repository], accept: Callable[[str], bool]) -> None:
    """Shows the licences and asks.

    Raises:
        InvalidOption: they were not accepted.
    """
    lines = []
    for repository in repositories:
        licence = repository.licence
        note = f"\n    {licence.note}" if licence.note else ""
        lines.append(f"{repository.hub_id}: {licence.name} ({licence.url}){note}")
    if not accept("\n".join(lines)):
        raise InvalidOption("the licences were not accepted; --accept-licence does", field="accept_licence")


def card(name: str, entries: Sequence[dict[str, Any]]) -> str:
    """A README for the bundle: attribution, and what was changed, as the licences demand."""
    whole = licence_of(entries)
    lines = [f"# {name}", "", f"Licence: {whole['licence']}."]
    if not whole["commercial_use"]:
        lines.append("**Not for commercial use.**")
    lines += ["", "Converted by deocc from, with names and number formats changed:", ""]
    for entry in entries:
        origin = entry.get("bundle") or entry.get("repository") or "local files"
        revision = f" at {entry['revision']}" if entry.get("revision") else ""
        files = ", ".join(file["name"] for file in entry.get("files", ()))
        lines.append(f"- {entry['part']}: {origin}{revision}, {entry['licence']}" + (f" ({files})" if files else ""))
    return "\n".join(lines) + "\n"
