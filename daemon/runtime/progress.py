"""Show the progress of long work: a bar (rich) on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID


class SymbolProgress(Protocol):
    """Receives the progress of a fetch."""

    def update(self, symbol: str, done: int, total: int) -> None:
        """Show ``done`` candles of the ``total`` that the time span may have."""


_LINES_PER_SYMBOL: Final = 4
"""Plain lines printed from start to end of one symbol."""


def can_redraw() -> bool:
    """Whether stdout is a terminal that can redraw a line."""
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
        # Per symbol: quarters that were printed.
        self._printed: dict[str, int] = {}

    def update(self, symbol: str, done: int, total: int) -> None:
        step = done * _LINES_PER_SYMBOL // total
        if step > self._printed.get(symbol, 0):
            self._printed[symbol] = step
            sys.stdout.write(f"{symbol}: {done:,} of {total:,} candles\n")
            sys.stdout.flush()


@contextmanager
def candles_progress() -> Iterator[SymbolProgress]:
    """Show the number of candles fetched of each symbol."""
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
