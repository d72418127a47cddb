"""Request candles by REST with a shared rate limit, and send nothing while banned."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from daemon.candles.grid import Grid
from daemon.candles.history_page import (
    fill_untraded,
    newest_traded,
    parse_history,
    untraded_until_ms,
)
from daemon.exchange.capabilities import check_capability
from daemon.exchange.ccxt_client import (
    UNREADABLE_ERRORS,
    check_market,
    exchange_error,
    make_exchange,
    network_errors,
)
from daemon.exchange.rate_limits import Banned
from daemon.exchange.request_limiter import RequestLimiter
from daemon.exchange.time_sync import TimeSync
from daemon.runtime.forward_proxy import note_proxies
from model.core.errors import ExchangeError, NotOffered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.candles.history_page import CandleVolume, HistoryPage
    from daemon.exchange.exchange_clock import ExchangeClock
    from daemon.exchange.source import MarketSource
    from daemon.metrics.metrics import Metrics
    from model.core.candle import Candle

log = logging.getLogger("candlecast.exchange")

_PAGE_ROWS: Final = 1000
_GAP_STEP_ROWS: Final = 200
"""Step over an empty page; smaller than the page of any exchange, to miss no candle."""

_NEWEST_ROWS: Final = 3
"""Candles that are requested to find the last trade."""


class RestClient:
    """Markets, history and time of the exchange by REST.

    Attributes:
        grid: when the exchange's candles open, as far as known.
        limiter: paces the requests and keeps to bans.
        exchange: the ccxt client; None before `open`.
    """

    def __init__(
        self,
        source: MarketSource,
        clock: ExchangeClock,
        metrics: Metrics,
        on_unusable_message: Callable[[Exception], None],
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            source: exchange, symbols and timeframe.
            clock: receives the exchange's time.
            metrics: bans and the state of the clock.
            on_unusable_message: called with the error of an unusable answer.
        """
        self._source = source
        self.grid: Final = Grid(source.name, source.timeframe)
        self._clock = clock
        self._on_unusable_message = on_unusable_message
        self.limiter: Final = RequestLimiter(source.name, clock, metrics)
        self._time_sync = TimeSync(source.name, clock, metrics, self.limiter, on_unusable_message)
        self.exchange: Any = None

    async def open(self) -> None:
        """Load the exchange's markets, check what it supports, and ask for its time.

        Its newest candles show when its weeks, days and other candles open. If it has none or does
        not answer, the usual grid is assumed.

        A ban is waited for: a restarted process would send requests within it.

        Raises:
            ExchangeError: unreachable, or without the symbol, timeframe or candle stream.
        """
        source = self._source
        self.exchange = make_exchange(
            source.name,
            source.endpoint_rest,
            source.endpoint_ws,
            symbols=source.symbols,
            wrap=self.limiter.limited_class,
        )
        self.limiter.set_pause(self.exchange.rateLimit / 1e3)
        check_capability(
            self.exchange, source.symbols, source.timeframe.text, capability="watchOHLCV"
        )
        note_proxies(self.exchange)
        await self._load_markets(self.exchange)
        check_market(self.exchange, source.symbols, source.timeframe.text, capability="watchOHLCV")
        await self.measure_time()
        try:
            await self.grid.learn(self._fetch_rows, source.symbols, self._clock.wall_ms())
        except NotOffered:
            raise
        except ExchangeError as error:
            log.warning("%s; it is not known yet when its candles open", error)

    async def check_symbols(self, symbols: Sequence[str]) -> None:
        """Check that the exchange lists further symbols; reload its markets if one is unknown.

        Raises:
            ExchangeError: unreachable, or without one of them.
        """
        source = self._source
        if any(symbol not in self.exchange.markets for symbol in symbols):
            # A new listing, or a market type that was not loaded.
            fresh = make_exchange(
                source.name,
                source.endpoint_rest,
                source.endpoint_ws,
                symbols=(*source.symbols, *symbols),
                wrap=self.limiter.limited_class,
            )
            try:
                await self._load_markets(fresh)
                # A symbol that is not listed any more is watched until it is removed.
                for name in ("markets", "markets_by_id"):
                    known = getattr(self.exchange, name)
                    setattr(fresh, name, {**known, **getattr(fresh, name)})
                self.exchange.set_markets_from_exchange(fresh)
            finally:
                await fresh.close()
        check_market(self.exchange, symbols, source.timeframe.text, capability="watchOHLCV")

    async def _load_markets(self, exchange: Any) -> None:  # noqa: ANN401 - ccxt's
        while True:
            try:
                await exchange.load_markets()
            except Banned as ban:
                await self._clock.sleep(ban.seconds)
            except network_errors() as error:
                raise exchange_error(self._source.name, "loading its markets", error) from None
            else:
                return

    async def close(self) -> None:
        """Close the client."""
        if self.exchange is not None:
            await self.exchange.close()

    def earliest_ms(self) -> int:
        """The least that the exchange's clock can show; its estimate while it is not trusted."""
        trusted_ms = self._clock.earliest_ms()
        return self._clock.wall_ms() if trusted_ms is None else trusted_ms

    async def history(self, symbol: str, since_ms: int) -> list[Candle]:
        """Fetch the closed candles of a symbol that opened at ``since_ms`` or later.

        Periods without trades, which the exchange leaves out, are filled. So are periods for which
        it answers twice with impossible values; each such row is counted.

        Raises:
            ExchangeError: the request failed.
        """
        candles: list[Candle] = []
        while True:
            answer, earliest_ms, arrived_ms = await self._fetch_confirmed(symbol, since_ms)
            frame = self.grid.timeframe
            fresh = [candle for candle in answer.final if candle.open_ms >= since_ms]
            candles += fresh
            uncertain_ms = [at for at in answer.unusable if candles and at > candles[0].open_ms]
            if uncertain_ms:
                certain = [candle for candle in candles if candle.open_ms < min(uncertain_ms)]
                return fill_untraded(certain, None, frame)
            # Page sizes differ by exchange: a short page need not be the last.
            since_ms = fresh[-1].close_ms if fresh else since_ms + _GAP_STEP_ROWS * frame.ms
            if since_ms + frame.ms > (arrived_ms if earliest_ms is None else earliest_ms):
                until_ms = untraded_until_ms(answer.pending_ms, frame, earliest_ms)
                return fill_untraded(candles, until_ms, frame)

    async def _fetch_confirmed(
        self, symbol: str, since_ms: int
    ) -> tuple[HistoryPage, int | None, int]:
        """Fetch a page of history; one with unusable rows is fetched twice.

        Returns:
            The answer, in which ``unusable`` holds the periods unusable in the second one only; the
            least that the exchange's clock could show at the request; and the wall clock at the
            answer.
        """
        answer, earliest_ms, arrived_ms = await self._fetch_answer(symbol, since_ms)
        if answer.unusable:
            before = answer.unusable
            answer, earliest_ms, arrived_ms = await self._fetch_answer(symbol, since_ms)
            answer = answer._replace(unusable=answer.unusable - before)
        return answer, earliest_ms, arrived_ms

    async def _fetch_answer(
        self, symbol: str, since_ms: int
    ) -> tuple[HistoryPage, int | None, int]:
        earliest_ms = self._clock.earliest_ms()
        rows = await self._fetch_rows(symbol, since_ms, _PAGE_ROWS)
        self.grid.learn_from(rows)
        arrived = self._clock.wall_ms(), self._clock.monotonic()
        answer = parse_history(symbol, rows, self.grid.timeframe, earliest_ms, arrived)
        for reason in answer.impossible:
            self._on_unusable_message(reason)
        return answer, earliest_ms, arrived[0]

    async def last_trade(self, symbol: str) -> CandleVolume | None:
        """Return opening time and volume of the newest candle with trades; None if there is none.

        Raises:
            ExchangeError: the request failed.
        """
        frame = self.grid.timeframe
        since_ms = frame.floor(self._clock.wall_ms()) - frame.ms
        rows = await self._fetch_rows(symbol, since_ms, _NEWEST_ROWS)
        return newest_traded(rows, frame, self._clock.wall_ms())

    async def _fetch_rows(self, symbol: str, since_ms: int, limit: int) -> Sequence[Sequence[Any]]:
        name, doing = self._source.name, f"fetching {symbol} candles"
        try:
            rows: Sequence[Sequence[Any]] = await self.exchange.fetch_ohlcv(
                symbol, self._source.timeframe.text, since_ms, limit
            )
        except network_errors() as error:
            raise exchange_error(name, doing, error) from None
        except UNREADABLE_ERRORS as error:
            self._on_unusable_message(error)
            msg = f"{name}: {doing}: the answer is malformed ({error!r})"
            raise ExchangeError(msg) from None
        return rows

    async def keep_time(self) -> None:
        """Measure the exchange's time at an interval until cancelled."""
        await self._time_sync.run(self.exchange)

    async def measure_time(self) -> bool:
        """Ask the exchange for its time; returns whether it answered."""
        return await self._time_sync.measure(self.exchange)
