"""How far long work has come: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID


class SymbolProgress(Protocol):
    """Shows how far the fetch has come."""

    def update(self, symbol: str, done: int, total: int) -> None:
        """``done`` candles have come of the ``total`` that the time span may have."""


_LINES: Final = 4
"""Plain lines from start to end of one symbol."""


def can_redraw() -> bool:
    """Whether what is printed can be drawn again: on a terminal that can go back to a line."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def update(self, symbol: str, done: int, total: int) -> None:
        if symbol not in self._tasks:
            self._tasks[symbol] = self._progress.add_task(symbol, total=total)
        self._progress.update(self._tasks[symbol], completed=done)


class _Lines:
    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def update(self, symbol: str, done: int, total: int) -> None:
        step = done * _LINES // total
        if step > self._said.get(symbol, 0):
            self._said[symbol] = step
            sys.stdout.write(f"{symbol}: {done:,} of {total:,} candles\n")
            sys.stdout.flush()


@contextmanager
def candles_progress() -> Iterator[SymbolProgress]:
    """Show how many candles of each symbol have come."""
    if not can_redraw():
        yield _Lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("candles"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        yield _Bars(progress)
