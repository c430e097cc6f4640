"""How far a long run has come: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Meter"]

EVERY = 30.0  # seconds between two lines in a log


class Meter:
    """`with Meter(console, "completing", 264) as meter: meter.advance()`. Quiet consoles say nothing."""

    def __init__(self, screen: Console, name: str, total: int | None) -> None:
        """Args:
        total: None: nobody knows.
        """
        self._screen, self._name, self._total = screen, name, total
        self._done = 0
        self._told = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        shown = screen.is_terminal and not screen.quiet
        self._bar = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=screen, transient=True, disable=not shown
        )
        self._task = self._bar.add_task(name, total=total)

    def advance(self, count: int = 1) -> None:
        self._done += count
        self._bar.advance(self._task, count)
        now = time.monotonic()
        if not self._screen.is_terminal and now - self._told >= EVERY:
            self._told = now
            self._screen.print(f"{self._name}: {self._done} of {self._total or '?'}", markup=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
