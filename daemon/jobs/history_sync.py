"""What history lacks of a span, fetched by REST and written down, a page at a time."""

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

    from daemon.jobs.rest_pages import Pages, Row
    from daemon.runtime.clock import Clock
    from daemon.runtime.progress import SymbolProgress
    from model.core.market import MarketKey


class Span(NamedTuple):
    """A stretch of time on the grid of a timeframe, Unix milliseconds."""

    from_ms: int
    until_ms: int


def missing_spans(opens_ms: Iterable[int], span: Span, step_ms: int) -> list[Span]:
    """The stretches of a span without a candle.

    Args:
        opens_ms: opening times of the candles that are there, ascending, all within the span.
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
    """Brings the history of one exchange and timeframe up to what is asked of it."""

    def __init__(
        self, history: Path, market: MarketKey, clock: Clock, progress: SymbolProgress
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            history: the database, created when missing.
            market: exchange (ccxt id) and timeframe.
            clock: says when a page arrived.
            progress: told how far a symbol is.
        """
        self._path = history
        self._market = market
        self._frame = market.timeframe
        self._clock = clock
        self._progress = progress

    async def complete(self, pages: Pages, symbols: Sequence[str], span: Span) -> int:
        """Fetch what is missing of every symbol; what came before a failure is kept.

        Returns:
            How many candles were added.

        Raises:
            ExchangeError: the exchange does not answer.
            HistoryError: the database cannot be read or written.
        """
        history = await asyncio.to_thread(History, self._path)
        try:
            archive = await asyncio.to_thread(HistoryReader, self._path, self._market)
            try:
                files = history, archive
                return sum([await self._complete(files, pages, symbol, span) for symbol in symbols])
            finally:
                await asyncio.to_thread(archive.close)
        finally:
            await asyncio.to_thread(history.close)

    async def _complete(
        self, files: tuple[History, HistoryReader], pages: Pages, symbol: str, span: Span
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
                    await asyncio.to_thread(self._add, history, candles)
                self._progress.update(symbol, added, total)
        return added

    def _known(self, archive: HistoryReader, symbol: str, span: Span) -> dict[int, Candle]:
        candles = archive.revisions(symbol, span.from_ms - self._frame.ms, span.until_ms)
        return {candle.open_ms: candle for candle in candles}

    def _candles(self, symbol: str, rows: Sequence[Row], newest: Candle | None) -> list[Candle]:
        """As candles, with flat ones where nothing was traded since the one before."""
        arrived = self._clock.wall_ms(), self._clock.monotonic()
        fresh = [
            Candle(symbol, open_ms, open_ms + self._frame.ms, ohlcv, *arrived, "rest")
            for open_ms, ohlcv in rows
        ]
        whole = fill_untraded([newest, *fresh] if newest else fresh, None, self._frame)
        known_ms = newest.open_ms if newest else -1
        return [
            candle._replace(received_ms=arrived[0]) for candle in whole if candle.open_ms > known_ms
        ]

    def _add(self, history: History, candles: list[Candle]) -> None:
        history.add_candles(self._market, candles)
