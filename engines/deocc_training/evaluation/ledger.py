"""What a run has done so far, on disk: one line an example, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from deocc.errors import InvalidOption
from deocc_training.evaluation.row import Row

__all__ = ["Ledger"]

ROWS = "results.jsonl"
PLAN = "plan.json"
PICTURES = "pictures"


class Ledger:
    """The folder of one evaluation.

    Args:
        plan: everything that the results depend on; a folder belongs to one plan.

    Raises:
        InvalidOption: the folder holds another evaluation.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder = folder
        self.pictures = folder / PICTURES
        self.pictures.mkdir(parents=True, exist_ok=True)
        note = folder / PLAN
        if note.exists():
            _check_same(json.loads(note.read_text(encoding="utf-8")), plan, folder)
        else:
            partial = note.with_suffix(".partial")
            partial.write_text(json.dumps(plan, indent=1), encoding="utf-8")
            partial.replace(note)
        self._path = folder / ROWS
        self._rows, whole = _read(self._path)
        self._file: IO[bytes] = self._path.open("ab")
        self._file.truncate(whole)  # the line that a killed run left half written

    def settled(self, key: str) -> bool:
        """True if asking again would change nothing."""
        row = self._rows.get(key)
        return row is not None and (row.failure is None or row.final)

    def add(self, row: Row) -> None:
        """Handed to the system at once: a kill does not lose it."""
        line = json.dumps(row.to_json(), ensure_ascii=False, separators=(",", ":")) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        self._rows[row.key] = row

    def rows(self) -> list[Row]:
        """In the data set's order."""
        return sorted(self._rows.values(), key=lambda row: row.index)

    def close(self) -> None:
        self._file.close()


def _read(path: Path) -> tuple[dict[str, Row], int]:
    """Rows by key, the last of each, and how many bytes of the file are whole lines."""
    rows: dict[str, Row] = {}
    whole = 0
    if path.exists():
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            row = Row.from_json(json.loads(line))
            rows[row.key] = row
            whole += len(line)
    return rows, whole


def _check_same(found: Mapping[str, Any], plan: Mapping[str, Any], folder: Path) -> None:
    wanted = json.loads(json.dumps(plan))
    different = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    if different:
        raise InvalidOption(
            f"{folder} holds an evaluation with other {', '.join(sorted(different))}; name another folder",
            field="output",
        )
