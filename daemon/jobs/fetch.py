"""Fetch an exchange's candle history into CSV files, one a symbol.

Pages are appended to a ``.partial`` file that is renamed when complete, so a run that was cut
continues where it stopped and a ``.csv`` is always whole.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.jobs.partial_file import Market, PartialFile
from daemon.jobs.rest_pages import SETTLING_MS, opened_pages
from model.core.errors import CandlecastError, ConfigError
from model.files.csv_values import EARLIEST_MS

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.jobs.partial_file import Held
    from daemon.jobs.rest_pages import Pages
    from daemon.runtime.clock import Clock
    from daemon.runtime.progress import SymbolProgress
    from model.core.candle import Timeframe

_DAY_MS: Final = 86_400_000


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


class Fetched(NamedTuple):
    """What came of one symbol.

    Attributes:
        symbol: ccxt symbol.
        path: the finished file; None where no candle came.
        candles: how many it holds.
        lacking: candles fewer than were asked for.
        lacking_share: the same as a share of those asked for.
        lack: in a sentence what the exchange does not have; "" where nothing is lacking.
    """

    symbol: str
    path: Path | None
    candles: int
    lacking: int
    lacking_share: float
    lack: str


class Asked(NamedTuple):
    """A stretch of time on the grid of a timeframe, Unix milliseconds.

    Attributes:
        first_ms: opening of the first candle to fetch.
        due_ms: opening of the first candle that was asked for, at or after ``first_ms``.
        end_ms: opening of the first candle that has not closed.
    """

    first_ms: int
    due_ms: int
    end_ms: int


def asked_for(days: float, timeframe: Timeframe, now_ms: float) -> Asked:
    """The stretch of time that ``days`` up to now are.

    Raises:
        ConfigError: it begins before 2009, or holds no closed candle.
    """
    start_ms = int(now_ms) - round(days * _DAY_MS)
    if start_ms < EARLIEST_MS:
        most = int((now_ms - EARLIEST_MS) // _DAY_MS)
        msg = f"--days {days:g} reaches back before 2009; it can be {most:,} at most"
        raise ConfigError(msg)
    due_ms = timeframe.floor(start_ms + timeframe.ms - 1)
    if days >= 1:
        # The file is named by its first day, so another run on the same day continues it.
        start_ms -= start_ms % _DAY_MS
    first_ms = timeframe.floor(start_ms + timeframe.ms - 1)
    end_ms = timeframe.floor(now_ms - SETTLING_MS)
    if due_ms >= end_ms:
        msg = f"--days {days:g} holds no closed candle of {timeframe.text}; ask for more days"
        raise ConfigError(msg)
    return Asked(first_ms, due_ms, end_ms)


async def fetch(job: FetchJob, clock: Clock, progress: SymbolProgress) -> list[Fetched]:
    """Fetch every symbol's closed candles, one after the other.

    Returns:
        What came, in the order of the symbols.

    Raises:
        ConfigError: a span that cannot be fetched.
        ExchangeError: unreachable, or without the symbol or timeframe; what came is kept.
        CandlecastError: a file cannot be written.
    """
    asked_for(job.days, job.timeframe, clock.wall_ms())
    again = "run again to continue from here"
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

    def __init__(self, job: FetchJob, pages: Pages, clock: Clock, progress: SymbolProgress) -> None:
        self._job = job
        self._frame = pages.grid.timeframe
        self._market = Market(job.exchange, job.endpoint_rest, self._frame)
        self._pages = pages
        self._progress = progress
        self._asked = asked_for(job.days, self._frame, clock.wall_ms())

    async def symbol(self, symbol: str) -> Fetched:
        """Fetch one symbol, or what is missing of it."""
        frame, (first_ms, _, end_ms) = self._frame, self._asked
        partial = PartialFile(self._job.folder, self._market, symbol, (first_ms, end_ms))
        since_ms = max(first_ms, await asyncio.to_thread(partial.resume) + frame.ms)
        total = max(1, (end_ms - first_ms) // frame.ms)
        self._progress.update(symbol, partial.held.candles, total)
        async for _, rows in self._pages.rows(symbol, since_ms, end_ms):
            await asyncio.to_thread(partial.append, rows)
            self._progress.update(symbol, partial.held.candles, total)
        path = await asyncio.to_thread(partial.finish)
        return fetched(symbol, path, partial.held, self._asked, frame)


def fetched(
    symbol: str, path: Path | None, held: Held, asked: Asked, timeframe: Timeframe
) -> Fetched:
    """Say what is lacking of what was asked for.

    Args:
        symbol: ccxt symbol.
        path: the file, None where no candle came.
        held: what came.
        asked: the span of time.
        timeframe: candle length.
    """
    due = (asked.end_ms - asked.due_ms) // timeframe.ms
    if held.candles == 0:
        lack = f"{symbol}: the exchange has no {timeframe.text} candles in that time"
        return Fetched(symbol, None, 0, due, 1.0, lack)
    early = max(0, held.first_ms - asked.due_ms) // timeframe.ms
    late = (asked.end_ms - held.last_ms) // timeframe.ms - 1
    between = (held.last_ms - held.first_ms) // timeframe.ms + 1 - held.candles
    lacking = early + between + late
    if not lacking:
        return Fetched(symbol, path, held.candles, 0, 0.0, "")
    parts = [
        f"{early:,} before {_utc(held.first_ms)}" if early else "",
        f"{between:,} in between" if between else "",
        f"{late:,} after {_utc(held.last_ms)}" if late else "",
    ]
    lack = (
        f"{symbol}: {held.candles:,} {timeframe.text} candles came; of {due:,} asked for the "
        f"exchange lacks {', '.join(filter(None, parts))}"
    )
    return Fetched(symbol, path, held.candles, lacking, lacking / due, lack)


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
