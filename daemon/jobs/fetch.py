"""Download an exchange's candle history to CSV files, one per symbol.

RestPages are appended to a ``.partial`` file that is renamed when complete, so that an interrupted
run can continue and a ``.csv`` file is always complete.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.jobs.partial_file import CandleSource, PartialFile
from daemon.jobs.rest_pages import MIN_AGE_MS, open_pages
from model.core.errors import CandlecastError, ConfigError
from model.files.csv_values import EARLIEST_MS

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.jobs.partial_file import FileContent
    from daemon.jobs.rest_pages import RestPages
    from daemon.runtime.clock import Clock
    from daemon.runtime.progress import SymbolProgress
    from model.core.candle import Timeframe

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class FetchJob:
    """The parameters of a download.

    Attributes:
        exchange: ccxt id.
        endpoint_rest: scheme, host and port that replace the exchange's; None keeps them.
        symbols: ccxt symbols.
        timeframe: candle length.
        days: span up to now; from one day up, the start is rounded down to midnight UTC.
        folder: folder of the files; created when missing.
    """

    exchange: str
    endpoint_rest: str | None
    symbols: tuple[str, ...]
    timeframe: Timeframe
    days: float
    folder: Path


class FetchResult(NamedTuple):
    """The result of one symbol.

    Attributes:
        symbol: ccxt symbol.
        path: the complete file; None without candles.
        candles: number of candles in the file.
        missing: number of requested candles that the exchange does not have.
        missing_share: the same as a share of the requested candles.
        note: a sentence about the missing candles; empty if none are missing.
    """

    symbol: str
    path: Path | None
    candles: int
    missing: int
    missing_share: float
    note: str


class FetchSpan(NamedTuple):
    """A span of time on the grid of a timeframe, Unix milliseconds.

    Attributes:
        first_ms: opening of the first candle to fetch.
        requested_ms: opening of the first requested candle, at or after ``first_ms``.
        end_ms: opening of the first candle that has not closed.
    """

    first_ms: int
    requested_ms: int
    end_ms: int


def fetch_span(days: float, timeframe: Timeframe, now_ms: float) -> FetchSpan:
    """Compute the span of the last ``days`` days.

    Raises:
        ConfigError: the span begins before 2009, or contains no closed candle.
    """
    start_ms = int(now_ms) - round(days * _DAY_MS)
    if start_ms < EARLIEST_MS:
        most = int((now_ms - EARLIEST_MS) // _DAY_MS)
        msg = f"--days {days:g} reaches back before 2009; it can be {most:,} at most"
        raise ConfigError(msg)
    requested_ms = timeframe.floor(start_ms + timeframe.ms - 1)
    if days >= 1:
        # The file is named by its first day, so that a run on the same day continues it.
        start_ms -= start_ms % _DAY_MS
    first_ms = timeframe.floor(start_ms + timeframe.ms - 1)
    end_ms = timeframe.floor(now_ms - MIN_AGE_MS)
    if requested_ms >= end_ms:
        msg = f"--days {days:g} holds no closed candle of {timeframe.text}; ask for more days"
        raise ConfigError(msg)
    return FetchSpan(first_ms, requested_ms, end_ms)


async def fetch(job: FetchJob, clock: Clock, progress: SymbolProgress) -> list[FetchResult]:
    """Fetch every symbol's closed candles, one after the other.

    Returns:
        The results in the order of the symbols.

    Raises:
        ConfigError: the span is invalid.
        ExchangeError: the exchange cannot be reached or lacks the symbol or timeframe; fetched
            candles are kept.
        CandlecastError: a file cannot be written.
    """
    fetch_span(job.days, job.timeframe, clock.wall_ms())
    advice = "run again to continue"
    try:
        async with open_pages(
            job.exchange, job.endpoint_rest, job.symbols, job.timeframe, clock, advice
        ) as pages:
            run = _FetchRun(job, pages, clock, progress)
            return [await run.fetch_symbol(symbol) for symbol in job.symbols]
    except OSError as error:
        msg = f"cannot write {error.filename or job.folder}: {error.strerror}"
        raise CandlecastError(msg) from None


class _FetchRun:
    """Fetches the same span of every symbol."""

    def __init__(
        self, job: FetchJob, pages: RestPages, clock: Clock, progress: SymbolProgress
    ) -> None:
        self._job = job
        self._frame = pages.grid.timeframe
        self._source = CandleSource(job.exchange, job.endpoint_rest, self._frame)
        self._pages = pages
        self._progress = progress
        self._span = fetch_span(job.days, self._frame, clock.wall_ms())

    async def fetch_symbol(self, symbol: str) -> FetchResult:
        """Fetch one symbol's candles that its partial file lacks."""
        frame, (first_ms, _, end_ms) = self._frame, self._span
        partial = PartialFile(self._job.folder, self._source, symbol, (first_ms, end_ms))
        since_ms = max(first_ms, await asyncio.to_thread(partial.resume) + frame.ms)
        total = max(1, (end_ms - first_ms) // frame.ms)
        self._progress.update(symbol, partial.content.candles, total)
        async for _, rows in self._pages.rows(symbol, since_ms, end_ms):
            await asyncio.to_thread(partial.append, rows)
            self._progress.update(symbol, partial.content.candles, total)
        path = await asyncio.to_thread(partial.finish)
        return fetch_result(symbol, path, partial.content, self._span, frame)


def fetch_result(
    symbol: str, path: Path | None, content: FileContent, span: FetchSpan, timeframe: Timeframe
) -> FetchResult:
    """Compute which requested candles are missing.

    Args:
        symbol: ccxt symbol.
        path: the file; None without candles.
        content: the fetched candles.
        span: the requested span.
        timeframe: candle length.
    """
    requested = (span.end_ms - span.requested_ms) // timeframe.ms
    if content.candles == 0:
        note = f"{symbol}: the exchange has no {timeframe.text} candles in that time"
        return FetchResult(symbol, None, 0, requested, 1.0, note)
    early = max(0, content.first_ms - span.requested_ms) // timeframe.ms
    late = (span.end_ms - content.last_ms) // timeframe.ms - 1
    between = (content.last_ms - content.first_ms) // timeframe.ms + 1 - content.candles
    missing = early + between + late
    if not missing:
        return FetchResult(symbol, path, content.candles, 0, 0.0, "")
    parts = [
        f"{early:,} before {_utc(content.first_ms)}" if early else "",
        f"{between:,} in between" if between else "",
        f"{late:,} after {_utc(content.last_ms)}" if late else "",
    ]
    note = (
        f"{symbol}: fetched {content.candles:,} {timeframe.text} candles; of the {requested:,} "
        f"requested, the exchange lacks {', '.join(filter(None, parts))}"
    )
    return FetchResult(symbol, path, content.candles, missing, missing / requested, note)


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
