"""The history of an exchange, page after page, for work that is not in a hurry."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from daemon.exchange import check_market, is_transient, make_exchange, network_errors, refusal
from daemon.forward_proxy import note_proxies
from model.candle import Ohlcv, Timeframe, check_ohlcv, check_open_ms
from model.errors import BadCandle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from daemon.clock import Clock

_PAGE: Final = 1000
_HOLE_ROWS: Final = 200
"""How far to step over an empty page: less than any exchange's page, so that nothing is missed."""

SETTLING_MS: Final = 5_000
"""A clock may be off by seconds: a candle that closed so recently could still be open there."""

_RETRIES_S: Final = (1.0, 4.0, 15.0)

Row = tuple[int, Ohlcv]
"""Opening time in Unix milliseconds, prices and volume."""


class Pages:
    """One exchange's candles of one timeframe, asked for by REST."""

    def __init__(self, exchange: Any, timeframe: Timeframe, clock: Clock, again: str) -> None:  # noqa: ANN401 - ccxt is untyped
        """Use a loaded ccxt exchange.

        Args:
            exchange: of ccxt, its markets loaded.
            timeframe: candle length.
            clock: waits between tries.
            again: what to do when the exchange does not answer, for the error's line.
        """
        self._exchange = exchange
        self._frame = timeframe
        self._clock = clock
        self._again = again

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
        frame = self._frame
        while since_ms < end_ms:
            rows = _closed(await self._page(symbol, since_ms), frame, since_ms, end_ms)
            # A page without a usable candle is a hole, or lies before the first trade.
            since_ms = rows[-1][0] + frame.ms if rows else since_ms + _HOLE_ROWS * frame.ms
            yield min(since_ms, end_ms), rows

    async def _page(self, symbol: str, since_ms: int) -> list[list[Any]]:
        """One page of candles; a network that stumbles is given more chances, a ban is not."""
        delays_s = iter(_RETRIES_S)
        while True:
            try:
                page: list[list[Any]] = await self._exchange.fetch_ohlcv(
                    symbol, self._frame.text, since_ms, _PAGE
                )
            except network_errors() as error:
                delay_s = next(delays_s, None)
                if delay_s is None or not is_transient(error):
                    doing = f"fetching {symbol} ({self._again})"
                    raise refusal(self._exchange.id, doing, error) from None
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
        ExchangeError: unreachable, or without a symbol or the timeframe.
    """
    exchange = make_exchange(name, endpoint_rest, symbols=symbols)
    try:
        note_proxies(exchange, streams=False)
        try:
            await exchange.load_markets()
        except network_errors() as error:
            raise refusal(name, "loading its markets", error) from None
        check_market(exchange, symbols, timeframe.text, ability="fetchOHLCV")
        yield Pages(exchange, timeframe, clock, again)
    finally:
        await exchange.close()


def _closed(page: list[list[Any]], frame: Timeframe, since_ms: int, end_ms: int) -> list[Row]:
    rows: dict[int, Ohlcv] = {}
    for open_ms, *values in page:
        try:
            opened, ohlcv = check_open_ms(open_ms, frame, end_ms), check_ohlcv(values)
        except BadCandle:
            continue
        if since_ms <= opened < end_ms:
            rows[opened] = ohlcv
    return sorted(rows.items())
