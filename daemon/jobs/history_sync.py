"""Fetch the candles that the history lacks, and store them page by page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from daemon.candles.history_page import fill_untraded
from model.core.candle import Candle
from model.history.reader import HistoryReader
from model.history.store import History

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from daemon.jobs.rest_pages import RestPages, Row
    from daemon.runtime.clock import Clock
    from daemon.runtime.progress import SymbolProgress
    from model.core.market import MarketKey


class Span(NamedTuple):
    """A span of time on the grid of a timeframe, Unix milliseconds, end exclusive."""

    from_ms: int
    until_ms: int


def missing_spans(opens_ms: Iterable[int], span: Span, step_ms: int) -> list[Span]:
    """Compute the parts of a span without candles.

    Args:
        opens_ms: opening times of the existing candles within the span, ascending.
        span: both ends on the grid.
        step_ms: length of a candle.
    """
    missing = []
    following_ms = span.from_ms
    for open_ms in (*opens_ms, span.until_ms):
        if open_ms > following_ms:
            missing.append(Span(following_ms, open_ms))
        following_ms = open_ms + step_ms
    return missing


class HistorySync:
    """Completes the history of one exchange and timeframe."""

    def __init__(
        self, history: Path, market: MarketKey, clock: Clock, progress: SymbolProgress
    ) -> None:
        """Store the parameters; nothing is opened yet.

        Args:
            history: the database, created when missing.
            market: exchange (ccxt id) and timeframe.
            clock: time of arrival of each page.
            progress: shows the progress of each symbol.
        """
        self._path = history
        self._market = market
        self._frame = market.timeframe
        self._clock = clock
        self._progress = progress

    async def fetch_missing(self, pages: RestPages, symbols: Sequence[str], span: Span) -> int:
        """Fetch every symbol's missing candles; after a failure, stored candles remain.

        Returns:
            The number of added candles.

        Raises:
            ExchangeError: the exchange does not answer.
            HistoryError: the database cannot be read or written.
        """
        history = await asyncio.to_thread(History, self._path)
        try:
            archive = await asyncio.to_thread(HistoryReader, self._path, self._market)
            try:
                files = history, archive
                return sum(
                    [await self._fetch_symbol(files, pages, symbol, span) for symbol in symbols]
                )
            finally:
                await asyncio.to_thread(archive.close)
        finally:
            await asyncio.to_thread(history.close)

    async def _fetch_symbol(
        self, files: tuple[History, HistoryReader], pages: RestPages, symbol: str, span: Span
    ) -> int:
        history, archive = files
        known = await asyncio.to_thread(self._known, archive, symbol, span)
        known = {at: candle for at, candle in known.items() if pages.grid.timeframe.on_grid(at)}
        step_ms = self._frame.ms
        missing = missing_spans((at for at in known if at >= span.from_ms), span, step_ms)
        total = sum((gap.until_ms - gap.from_ms) // step_ms for gap in missing)
        added = 0
        for gap in missing:
            newest = known.get(gap.from_ms - step_ms)
            async for _, rows in pages.rows(symbol, *gap):
                candles = self._candles(symbol, rows, newest)
                if candles:
                    newest = candles[-1]
                    added += len(candles)
                    await asyncio.to_thread(self._store, history, candles)
                self._progress.update(symbol, added, total)
        return added

    def _known(self, archive: HistoryReader, symbol: str, span: Span) -> dict[int, Candle]:
        candles = archive.revisions(symbol, span.from_ms - self._frame.ms, span.until_ms)
        return {candle.open_ms: candle for candle in candles}

    def _candles(self, symbol: str, rows: Sequence[Row], newest: Candle | None) -> list[Candle]:
        """Convert rows to candles, with flat candles for periods without a trade."""
        arrival = self._clock.wall_ms(), self._clock.monotonic()
        fresh = [
            Candle(symbol, open_ms, open_ms + self._frame.ms, ohlcv, *arrival, "rest")
            for open_ms, ohlcv in rows
        ]
        filled = fill_untraded([newest, *fresh] if newest else fresh, None, self._frame)
        known_ms = newest.open_ms if newest else -1
        return [
            candle._replace(received_ms=arrival[0])
            for candle in filled
            if candle.open_ms > known_ms
        ]

    def _store(self, history: History, candles: list[Candle]) -> None:
        history.add_candles(self._market, candles)
