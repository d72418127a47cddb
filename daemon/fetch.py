"""`candlecast fetch`: an exchange's candle history as CSV files, one a symbol.

Pages are appended to a ``.partial`` file that is renamed when complete, so a run that was cut
goes on where it stopped and a ``.csv`` is always whole.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from daemon.pages import SETTLING_MS, opened_pages
from model.csvfiles import HEADER, csv_name, csv_row
from model.errors import CandlecastError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.clock import Clock
    from daemon.pages import Pages, Row
    from model.candle import Timeframe

_DAY_MS: Final = 86_400_000


class Progress(Protocol):
    """Who is told how far the fetch has come."""

    def update(self, symbol: str, done: int, total: int) -> None:
        """``done`` of ``total`` candles' time span is in the file."""


@dataclass(frozen=True)
class FetchJob:
    """What to fetch.

    Attributes:
        exchange: ccxt id.
        endpoint_rest: scheme, host and port instead of the exchange's own; None keeps them.
        symbols: ccxt symbols.
        timeframe: candle length.
        days: how far back, counted from now; from one day up rounded down to midnight UTC.
        folder: where the files go; created when missing.
    """

    exchange: str
    endpoint_rest: str | None
    symbols: tuple[str, ...]
    timeframe: Timeframe
    days: float
    folder: Path


async def fetch(job: FetchJob, clock: Clock, progress: Progress) -> list[Path]:
    """Fetch every symbol's closed candles, one after the other.

    Returns:
        The finished files, in the order of the symbols.

    Raises:
        ExchangeError: unreachable, or without the symbol or timeframe; what came is kept.
        CandlecastError: a file cannot be written, or there are no candles.
    """
    again = "run again to go on from here"
    try:
        async with opened_pages(
            job.exchange, job.endpoint_rest, job.symbols, job.timeframe, clock, again
        ) as pages:
            run = _Run(job, pages, clock, progress)
            return [await run.symbol(symbol) for symbol in job.symbols]
    except OSError as error:
        msg = f"cannot write {error.filename or job.folder}: {error.strerror}"
        raise CandlecastError(msg) from None


class _Run:
    """One run: the same span of time for every symbol."""

    def __init__(self, job: FetchJob, pages: Pages, clock: Clock, progress: Progress) -> None:
        self._frame = frame = pages.grid.timeframe
        self._folder = job.folder
        self._pages = pages
        self._progress = progress
        now_ms = clock.wall_ms()
        start_ms = now_ms - round(job.days * _DAY_MS)
        if job.days >= 1:
            # The file is named by its first day, so another run on the same day goes on with it.
            start_ms -= start_ms % _DAY_MS
        self._first_ms = frame.floor(start_ms + frame.ms - 1)
        self._end_ms = frame.floor(now_ms - SETTLING_MS)

    async def symbol(self, symbol: str) -> Path:
        """Fetch one symbol, or what is missing of it."""
        frame, first_ms, end_ms = self._frame, self._first_ms, self._end_ms
        partial = _PartialFile(self._folder, symbol, frame, first_ms)
        since_ms = max(first_ms, await asyncio.to_thread(partial.resume) + frame.ms)
        total = max(1, (end_ms - first_ms) // frame.ms)
        self._progress.update(symbol, (since_ms - first_ms) // frame.ms, total)
        async for read_ms, rows in self._pages.rows(symbol, since_ms, end_ms):
            await asyncio.to_thread(partial.append, rows)
            self._progress.update(symbol, (read_ms - first_ms) // frame.ms, total)
        self._progress.update(symbol, total, total)
        return await asyncio.to_thread(partial.finish)


class _PartialFile:
    """Rows that have come so far; renamed to what they are when complete."""

    def __init__(self, folder: Path, symbol: str, frame: Timeframe, first_ms: int) -> None:
        self._symbol = symbol
        self._frame = frame
        self._folder = folder
        name = csv_name(symbol, frame.text, first_ms, first_ms).rpartition("_to_")[0]
        self._path = folder / f"{name}.partial"
        self._first_ms: int | None = None
        self._last_ms = -1

    def resume(self) -> int:
        """Drop a line that was cut; give the last candle's opening time, or -1 for none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        lines = whole.splitlines()
        if not lines or lines[0] != HEADER:
            self._path.write_text(HEADER + "\n", encoding="utf-8")
            return -1
        if whole != text:
            self._path.write_text(whole, encoding="utf-8")
        if len(lines) > 1:
            self._first_ms, self._last_ms = (int(lines[i].split(",")[0]) for i in (1, -1))
        return self._last_ms

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows that follow the last one."""
        if not rows:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{csv_row(open_ms, ohlcv)}\n" for open_ms, ohlcv in rows)
        self._first_ms = rows[0][0] if self._first_ms is None else self._first_ms
        self._last_ms = rows[-1][0]

    def finish(self) -> Path:
        """Make the file durable and give it its name."""
        if self._first_ms is None:
            self._path.unlink()
            msg = f"the exchange has no {self._frame.text} candles of {self._symbol} in that time"
            raise CandlecastError(msg)
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        name = csv_name(self._symbol, self._frame.text, self._first_ms, self._last_ms)
        return self._path.replace(self._folder / name)
