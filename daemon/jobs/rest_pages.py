"""The history of an exchange, page after page, for work that is not in a hurry."""

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

_PAGE: Final = 1000

_HOLE_ROWS: Final = 200
"""How far to step over an empty page: less than any exchange's page, so that nothing is missed."""

SETTLING_MS: Final = 5_000
"""A clock may be off by seconds: a candle that closed so recently could still be open there."""

_RETRIES_S: Final = (1.0, 4.0, 15.0)

Row = tuple[int, Ohlcv]
"""Opening time in Unix milliseconds, prices and volume."""


class Pages:
    """One exchange's candles of one timeframe, asked for by REST.

    Attributes:
        grid: when the exchange's candles begin, as far as they have shown it.
    """

    def __init__(self, exchange: Any, timeframe: Timeframe, clock: Clock, again: str) -> None:  # noqa: ANN401 - ccxt is untyped
        """Use a loaded ccxt exchange.

        Args:
            exchange: of ccxt, its markets loaded.
            timeframe: candle length.
            clock: waits between tries.
            again: what to do when the exchange does not answer, for the error's line.
        """
        self._exchange = exchange
        self.grid: Final = Grid(exchange.id, timeframe)
        self._clock = clock
        self._again = again

    async def learn_grid(self, symbols: Sequence[str]) -> None:
        """Learn from the newest candles of the first symbols when the exchange's candles begin.

        Raises:
            ExchangeError: it does not answer, or its candles keep to no grid.
        """
        await self.grid.learn(self._page, symbols, self._clock.wall_ms())

    async def rows(
        self, symbol: str, since_ms: int, end_ms: int
    ) -> AsyncIterator[tuple[int, Sequence[Row]]]:
        """The usable closed candles that opened from ``since_ms`` to before ``end_ms``.

        Yields:
            How far the history has been read (Unix milliseconds) and the candles of one page,
            ascending, each once; none where the exchange has a hole.

        Raises:
            ExchangeError: it does not answer, though asked again after a while.
        """
        left_out = 0
        while since_ms < end_ms:
            page = await self._page(symbol, since_ms, _PAGE)
            self.grid.learn_from(page)
            frame = self.grid.timeframe
            rows, odd = _closed(page, frame, since_ms, end_ms)
            left_out += odd
            # A page without a usable candle is a hole, or lies before the first trade.
            since_ms = rows[-1][0] + frame.ms if rows else since_ms + _HOLE_ROWS * frame.ms
            yield min(since_ms, end_ms), rows
        if left_out:
            frame = self.grid.timeframe
            log.warning(
                "%d %s candles of %s are off the grid and left out; it has a boundary at %s",
                left_out, frame.text, symbol, moment(frame.floor(end_ms)),
            )  # fmt: skip

    async def _page(self, symbol: str, since_ms: int, limit: int) -> list[list[Any]]:
        """One page of candles; a network that stumbles is given more chances, a ban is not."""
        delays_s = iter(_RETRIES_S)
        while True:
            try:
                page: list[list[Any]] = await self._exchange.fetch_ohlcv(
                    symbol, self.grid.timeframe.text, since_ms, limit
                )
            except network_errors() as error:
                delay_s = next(delays_s, None)
                if delay_s is None or not is_transient(error):
                    doing = f"fetching {symbol} ({self._again})"
                    raise exchange_error(self._exchange.id, doing, error) from None
            else:
                return page
            await self._clock.sleep(delay_s)


@asynccontextmanager
async def opened_pages(
    name: str,
    endpoint_rest: str | None,
    symbols: tuple[str, ...],
    timeframe: Timeframe,
    clock: Clock,
    again: str,
) -> AsyncIterator[Pages]:
    """Load an exchange's markets, and close it again at the end.

    Args:
        name: ccxt id.
        endpoint_rest: scheme, host and port instead of the exchange's own; None keeps them.
        symbols: ccxt symbols that will be asked for.
        timeframe: candle length.
        clock: waits between tries.
        again: what to do when the exchange does not answer.

    Raises:
        ExchangeError: unreachable, without a symbol or the timeframe, or its candles keep to no
            grid.
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
        pages = Pages(exchange, timeframe, clock, again)
        await pages.learn_grid(symbols)
        yield pages
    finally:
        await exchange.close()


def _closed(
    page: list[list[Any]], frame: Timeframe, since_ms: int, end_ms: int
) -> tuple[list[Row], int]:
    """The usable candles of a page, ascending, and how many of it are off the grid."""
    rows: dict[int, Ohlcv] = {}
    odd = 0
    for row in page:
        try:
            opened = check_open_ms(row[0] if row else None, frame, end_ms)
            ohlcv = repair_ohlcv(row[1:6]).ohlcv
        except OffGrid:
            odd += since_ms <= row[0] < end_ms
            continue
        except BadCandle:
            continue
        if since_ms <= opened and opened + frame.ms <= end_ms:
            rows[opened] = ohlcv
    return sorted(rows.items()), odd
