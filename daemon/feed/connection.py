"""Run one websocket connection: subscribe, parse updates into candles, detect stalls."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from daemon.candles.closing import ClosingRule
from daemon.exchange.ccxt_client import make_exchange, network_errors
from daemon.exchange.ccxt_tap import tapped_class
from daemon.exchange.rate_limits import RequestPacer
from daemon.feed.liveness import LivenessMonitor
from daemon.runtime.tasks import unwrap_expected
from model.core.errors import BadCandle, ExchangeError, OffGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.exchange.rest import RestClient
    from daemon.exchange.source import MarketSource
    from daemon.runtime.clock import Clock
    from model.core.candle import Candle

_MAX_SKEW_MS: Final = 1_000
_CHECKS_PER_INTERVAL: Final = 10
"""Liveness checks per expected interval."""

_CONFIRM_SHARE: Final = 1 / 10
"""Of the expected interval: the stream may send a trade this much later than REST does."""


class ConnectionListener(Protocol):
    """Receives what comes over a connection; called in the message handler."""

    def on_message(self) -> None:
        """One update of one candle has come."""

    def on_candle_closed(self, candle: Candle) -> None:
        """A candle is final."""

    def on_candle_update(self, candle: Candle) -> None:
        """The current state of a candle that has not closed."""

    def on_first_update(self, symbol: str, forming_ms: int) -> None:
        """A symbol's first update has come; its forming candle opened at ``forming_ms``."""

    def on_unusable_message(self, error: Exception) -> None:
        """A message cannot be used."""

    def on_receiver_error(self, error: Exception) -> None:
        """One of the methods above raised."""


class Connection:
    """Candles of some symbols over one websocket; `run` it once.

    Attributes:
        first_update: set when the first update of any symbol has come.
        complete: set when it can replace its predecessor: it will report the next close of every
            symbol.
        stalled: set when the exchange has trades that this connection has not sent.
        stall_reason: which symbol showed it, for the log.
        stalled_symbols: symbols that are not sent: all of them if there was no update at all.
        ended: set when the connection is lost.
        error: one of `network_errors`, which ended it.
        subscribing_s: how long subscribing to all symbols takes at the exchange's rate limit.
    """

    def __init__(
        self,
        source: MarketSource,
        symbols: Sequence[str],
        rest: RestClient,
        clock: Clock,
        listener: ConnectionListener,
        interval_s: float,
    ) -> None:
        """Prepare; `run` connects.

        Args:
            source: the exchange and the timeframe.
            symbols: of one kind, not more than the exchange allows on a connection.
            rest: its markets are shared, and it answers probes of silent symbols.
            clock: the injected clock.
            listener: receives candles and events.
            interval_s: expected interval between updates of a symbol.
        """
        self.first_update = asyncio.Event()
        self.complete = asyncio.Event()
        self.stalled = asyncio.Event()
        self.stall_reason = ""
        self.stalled_symbols: Sequence[str] = ()
        self.ended = asyncio.Event()
        self.error: Exception | None = None
        self._source = source
        self._symbols = symbols
        self._rest = rest
        self._clock = clock
        self._listener = listener
        self._closing = ClosingRule(rest.grid.timeframe, _MAX_SKEW_MS)
        # Symbols without an update so far.
        self._without_update = set(symbols)
        # Symbols whose next close this connection may miss.
        self._incomplete = set(symbols)
        self._interval_s = interval_s
        self._pace = RequestPacer(rest.limiter.pause_s)
        self.subscribing_s = rest.limiter.pause_s * len(symbols)
        self._liveness = LivenessMonitor(
            symbols, interval_s, clock.monotonic(), rest.limiter.pause_s
        )

    async def run(self) -> None:
        """Subscribe and stay until the connection is lost or this is cancelled."""
        try:
            await self._subscribe()
        except network_errors() as error:
            self.error = error
            self.ended.set()

    async def _subscribe(self) -> None:
        source = self._source
        exchange = make_exchange(
            source.name,
            source.endpoint_rest,
            source.endpoint_ws,
            wrap=lambda c: tapped_class(c, self),
        )
        # ccxt counts missing pongs by the wall clock, which jumps; `_check_liveness` replaces that.
        exchange.streaming = exchange.streaming | {"maxPingPongMisses": inf}
        try:
            # KuCoin asks where to connect to before ccxt has a reason to open its client.
            exchange.open()
            exchange.set_markets_from_exchange(self._rest.exchange)
            exchange.watch_candles(self._symbols, source.timeframe.text)
            async with asyncio.TaskGroup() as group:
                topics = _topics(exchange, self._symbols, source.timeframe.text)
                tasks = [group.create_task(_watch(exchange, topic)) for topic in topics]
                tasks.append(group.create_task(self._check_liveness()))
                await asyncio.wait(tasks)
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, network_errors()) from None
        finally:
            await _close(exchange)

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        """Handle one update from the tap."""
        try:
            self._on_update(symbol, open_ms, values, closed=closed)
        except BadCandle as error:
            self._listener.on_unusable_message(error)
        except Exception as error:  # noqa: BLE001 - the tap would count it as a bad message
            self._listener.on_receiver_error(error)

    async def wait_turn(self, cost: float | None = None) -> None:
        """Wait until the next subscription may be asked for."""
        await self._clock.sleep(self._pace.reserve(self._clock.monotonic(), cost))

    def on_unusable_message(self, error: Exception) -> None:
        """Pass on what the tap could not parse."""
        self._listener.on_unusable_message(error)

    def _on_update(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic()
        self._listener.on_message()
        self._closing.timeframe = self._rest.grid.timeframe
        try:
            final = self._closing.on_update(
                symbol, open_ms, values, closed=closed, now_ms=now_ms, now_s=now_s
            )
        except OffGrid:
            # The candle cannot be used, but the stream is alive.
            self._liveness.on_update(symbol, self._rest.grid.timeframe.floor(now_ms), now_s)
            raise
        forming = self._closing.forming(symbol)
        newest = forming or final
        if newest is not None:
            self._liveness.on_update(symbol, newest.open_ms, now_s)
        if self._incomplete:
            self._on_first_updates(symbol, forming, flagged=closed is not None)
        if final is not None:
            self._listener.on_candle_closed(final)
        if forming is not None:
            self._listener.on_candle_update(forming)

    def _on_first_updates(self, symbol: str, forming: Candle | None, *, flagged: bool) -> None:
        if forming is None:
            return
        if symbol in self._without_update:
            self._without_update.discard(symbol)
            self.first_update.set()
            self._listener.on_first_update(symbol, forming.open_ms)
        # Without a flag the first candle only primes: the predecessor reports its close.
        if flagged or not self._closing.is_priming(symbol):
            self._incomplete.discard(symbol)
            if not self._incomplete:
                self.complete.set()

    async def _check_liveness(self) -> None:
        """Probe silent symbols until one proves that the connection has stalled."""
        while not self.stalled.is_set():
            await self._clock.sleep(self._interval_s / _CHECKS_PER_INTERVAL)
            for symbol in self._liveness.symbols_to_probe(self._clock.monotonic()):
                if await self._is_stalled(symbol):
                    self._report_stall(symbol)
                    break

    def _report_stall(self, symbol: str) -> None:
        silent_s = self._clock.monotonic() - self._liveness.last_update_s(symbol)
        self.stall_reason = f"the stream has sent nothing of {symbol} for {silent_s:.0f} s"
        self.stalled_symbols = [symbol] if self.first_update.is_set() else self._symbols
        self.stalled.set()

    async def _is_stalled(self, symbol: str) -> bool:
        before_s = self._liveness.last_update_s(symbol)
        try:
            newest = await self._rest.last_trade(symbol)
        except ExchangeError:
            newest = None
        if not self._liveness.on_probe(symbol, newest, self._clock.monotonic()):
            return False
        await self._clock.sleep(self._interval_s * _CONFIRM_SHARE)
        return self._liveness.last_update_s(symbol) == before_s


def _topics(exchange: Any, symbols: Sequence[str], timeframe: str) -> list[list[list[str]]]:  # noqa: ANN401
    """Pairs of symbol and timeframe per subscription: all in one where the exchange can."""
    pairs = [[symbol, timeframe] for symbol in symbols]
    return [pairs] if exchange.has.get("watchOHLCVForSymbols") else [[pair] for pair in pairs]


async def _close(exchange: Any) -> None:  # noqa: ANN401
    """Close ccxt's client completely, even when cancelled meanwhile."""
    try:
        await exchange.close()
    except asyncio.CancelledError:
        # The closing handshake with a peer that does not answer takes seconds. The second attempt
        # does not wait for it; without one the sockets would stay open.
        await exchange.close()
        raise


async def _watch(exchange: Any, pairs: list[list[str]]) -> None:  # noqa: ANN401
    """Subscribe and stay subscribed; updates go through the tap, not through here."""
    import ccxt

    while True:
        try:
            if exchange.has.get("watchOHLCVForSymbols"):
                await exchange.watch_ohlcv_for_symbols(pairs)
            else:
                await exchange.watch_ohlcv(*pairs[0])
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            # ccxt raises these where it lacks a case, such as Bitget's timeframe of two hours.
            msg = f"ccxt cannot ask for candles of {pairs[0][1]}: {error!r}"
            raise ccxt.NotSupported(msg) from error
