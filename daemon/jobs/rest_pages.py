"""Read an exchange's candle history by REST, page by page."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from daemon.candles.grid import Grid
from daemon.exchange.capabilities import check_capability
from daemon.exchange.ccxt_client import (
    check_market,
    exchange_error,
    is_transient,
    make_exchange,
    network_errors,
)
from daemon.runtime.forward_proxy import note_proxies
from model.core.candle import Ohlcv, Timeframe, check_open_ms, moment, repair_ohlcv
from model.core.errors import BadCandle, OffGrid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.jobs")

_PAGE_ROWS: Final = 1000

_EMPTY_PAGE_ROWS: Final = 200
"""Candles to skip after an empty page: less than any exchange's page, to miss no candle."""

MIN_AGE_MS: Final = 5_000
"""Age of a closed candle from which on it is fetched: this machine's clock may be seconds ahead."""

_RETRY_DELAYS_S: Final = (1.0, 4.0, 15.0)
"""A batch job fails after these retries, unlike the daemon, which retries without end."""

Row = tuple[int, Ohlcv]
"""Opening time in Unix milliseconds, prices and volume."""


class RestPages:
    """One exchange's candles of one timeframe, fetched by REST.

    Attributes:
        grid: when the exchange's candles begin, learnt from its candles.
    """

    def __init__(self, exchange: Any, timeframe: Timeframe, clock: Clock, advice: str) -> None:  # noqa: ANN401 - ccxt is untyped
        """Use a loaded ccxt exchange.

        Args:
            exchange: ccxt exchange with loaded markets.
            timeframe: candle length.
            clock: waits between retries.
            advice: part of the error message when the exchange does not answer.
        """
        self._exchange = exchange
        self.grid: Final = Grid(exchange.id, timeframe)
        self._clock = clock
        self._advice = advice

    async def learn_grid(self, symbols: Sequence[str]) -> None:
        """Learn when candles begin from the newest candles of the first symbols.

        Raises:
            ExchangeError: the exchange does not answer, or its candles are on no regular grid.
        """
        await self.grid.learn(self._page, symbols, self._clock.wall_ms())

    async def rows(
        self, symbol: str, since_ms: int, end_ms: int
    ) -> AsyncIterator[tuple[int, Sequence[Row]]]:
        """Fetch the valid closed candles that opened in ``[since_ms, end_ms)``.

        Yields:
            The time up to which the history has been read (Unix milliseconds), and the candles of
            one page, ascending and unique; no candles where the exchange has a gap.

        Raises:
            ExchangeError: the exchange does not answer after several retries.
        """
        off_grid = 0
        while since_ms < end_ms:
            page = await self._page(symbol, since_ms, _PAGE_ROWS)
            self.grid.learn_from(page)
            frame = self.grid.timeframe
            rows, page_off_grid = _closed(page, frame, since_ms, end_ms)
            off_grid += page_off_grid
            # A page without a valid candle is a gap, or before the first trade.
            since_ms = rows[-1][0] + frame.ms if rows else since_ms + _EMPTY_PAGE_ROWS * frame.ms
            yield min(since_ms, end_ms), rows
        if off_grid:
            frame = self.grid.timeframe
            log.warning(
                "left out %d %s candles of %s that are off the grid, which has a boundary at %s",
                off_grid, frame.text, symbol, moment(frame.floor(end_ms)),
            )  # fmt: skip

    async def _page(self, symbol: str, since_ms: int, limit: int) -> list[list[Any]]:
        """Fetch one page of candles; retry after network errors, but not after a ban."""
        retry_delays_s = iter(_RETRY_DELAYS_S)
        while True:
            try:
                page: list[list[Any]] = await self._exchange.fetch_ohlcv(
                    symbol, self.grid.timeframe.text, since_ms, limit
                )
            except network_errors() as error:
                delay_s = next(retry_delays_s, None)
                if delay_s is None or not is_transient(error):
                    action = f"fetching {symbol} ({self._advice})"
                    raise exchange_error(self._exchange.id, action, error) from None
            else:
                return page
            await self._clock.sleep(delay_s)


@asynccontextmanager
async def open_pages(
    name: str,
    endpoint_rest: str | None,
    symbols: tuple[str, ...],
    timeframe: Timeframe,
    clock: Clock,
    advice: str,
) -> AsyncIterator[RestPages]:
    """Open an exchange, load its markets and learn its grid; close it at the end.

    Args:
        name: ccxt id.
        endpoint_rest: scheme, host and port that replace the exchange's; None keeps them.
        symbols: ccxt symbols that will be fetched.
        timeframe: candle length.
        clock: waits between retries.
        advice: part of the error message when the exchange does not answer.

    Raises:
        ExchangeError: the exchange cannot be reached, lacks a symbol or the timeframe, or its
            candles are on no regular grid.
    """
    exchange = make_exchange(name, endpoint_rest, symbols=symbols)
    try:
        check_capability(exchange, symbols, timeframe.text, capability="fetchOHLCV")
        note_proxies(exchange, streams=False)
        try:
            await exchange.load_markets()
        except network_errors() as error:
            raise exchange_error(name, "loading its markets", error) from None
        check_market(exchange, symbols, timeframe.text, capability="fetchOHLCV")
        pages = RestPages(exchange, timeframe, clock, advice)
        await pages.learn_grid(symbols)
        yield pages
    finally:
        await exchange.close()


def _closed(
    page: list[list[Any]], frame: Timeframe, since_ms: int, end_ms: int
) -> tuple[list[Row], int]:
    """The valid closed candles of a page, ascending, and the number of those off the grid."""
    rows: dict[int, Ohlcv] = {}
    off_grid = 0
    for row in page:
        try:
            open_ms = check_open_ms(row[0] if row else None, frame, end_ms)
            ohlcv = repair_ohlcv(row[1:6]).ohlcv
        except OffGrid:
            off_grid += since_ms <= row[0] < end_ms
            continue
        except BadCandle:
            continue
        if since_ms <= open_ms and open_ms + frame.ms <= end_ms:
            rows[open_ms] = ohlcv
    return sorted(rows.items()), off_grid
