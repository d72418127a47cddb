"""One websocket connection of some symbols: subscribed, listened to, replaced when it goes deaf."""

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
_LOOKS: Final = 10
"""The connection is looked at so often per expected interval."""

_PATIENCE: Final = 1 / 10
"""Of the expected interval: the stream may tell of a trade a little later than REST does."""


class ConnectionListener(Protocol):
    """Who is told what comes over a connection; called in the message handler."""

    def on_message(self) -> None:
        """One update of one candle has come."""

    def on_final(self, candle: Candle) -> None:
        """A candle is final."""

    def on_forming(self, candle: Candle) -> None:
        """A candle that has not closed, as it is now."""

    def on_first(self, symbol: str, forming_ms: int) -> None:
        """A symbol is heard for the first time, its forming candle opened at ``forming_ms``."""

    def on_garbage(self, error: Exception) -> None:
        """Something came that cannot be used."""

    def on_bug(self, error: Exception) -> None:
        """One of the above failed."""


class Connection:
    """Candles of some symbols; `run` it once.

    Attributes:
        heard: set when the first symbol has been heard of.
        complete: set when it could do without its predecessor: of every symbol, what closes next
            will be told by this connection.
        deaf: set when the exchange knows of trades that this connection has not told.
        silence: says about what, once it is deaf.
        deaf_to: those symbols: all of them if nothing at all was heard.
        ended: set when the connection is lost.
        error: one of `network_errors`, which ended it.
        subscribing_s: how long asking for all symbols takes at the exchange's pace.
    """

    def __init__(
        self,
        source: MarketSource,
        shard: Sequence[str],
        rest: RestClient,
        clock: Clock,
        ear: ConnectionListener,
        interval_s: float,
    ) -> None:
        """Prepare; `run` connects.

        Args:
            source: the exchange and the timeframe.
            shard: symbols of one kind, not more than the exchange allows.
            rest: its markets are shared, and it is asked whether silence is suspicious.
            clock: the injected clock.
            ear: told of everything.
            interval_s: how often a symbol should be heard of.
        """
        self.heard = asyncio.Event()
        self.complete = asyncio.Event()
        self.deaf = asyncio.Event()
        self.silence = ""
        self.deaf_to: Sequence[str] = ()
        self.ended = asyncio.Event()
        self.error: Exception | None = None
        self._source = source
        self._shard = shard
        self._rest = rest
        self._clock = clock
        self._ear = ear
        self._closing = ClosingRule(rest.grid.timeframe, _MAX_SKEW_MS)
        self._unheard = set(shard)
        self._incomplete = set(shard)
        self._interval_s = interval_s
        self._pace = RequestPacer(rest.limiter.pause_s)
        self.subscribing_s = rest.limiter.pause_s * len(shard)
        self._vigil = LivenessMonitor(shard, interval_s, clock.monotonic(), rest.limiter.pause_s)

    async def run(self) -> None:
        """Subscribe and stay until the connection is lost or this is cancelled."""
        try:
            await self._stay()
        except network_errors() as error:
            self.error = error
            self.ended.set()

    async def _stay(self) -> None:
        source = self._source
        exchange = make_exchange(
            source.name,
            source.endpoint_rest,
            source.endpoint_ws,
            wrap=lambda c: tapped_class(c, self),
        )
        # ccxt counts missing pongs by the wall clock, which jumps; the vigil is kept here instead.
        exchange.streaming = exchange.streaming | {"maxPingPongMisses": inf}
        try:
            # KuCoin asks where to connect to before ccxt has a reason to open its client.
            exchange.open()
            exchange.set_markets_from_exchange(self._rest.exchange)
            exchange.watch_candles(self._shard, source.timeframe.text)
            async with asyncio.TaskGroup() as group:
                topics = _topics(exchange, self._shard, source.timeframe.text)
                tasks = [group.create_task(_watch(exchange, topic)) for topic in topics]
                tasks.append(group.create_task(self._keep_vigil()))
                await asyncio.wait(tasks)
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, network_errors()) from None
        finally:
            await _close(exchange)

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        """Take in one update from the tap."""
        try:
            self._take(symbol, open_ms, values, closed=closed)
        except BadCandle as error:
            self._ear.on_garbage(error)
        except Exception as error:  # noqa: BLE001 - the tap would take a bug of ours for garbage
            self._ear.on_bug(error)

    async def wait_turn(self, cost: float | None = None) -> None:
        """Wait until the next subscription may be asked for."""
        await self._clock.sleep(self._pace.reserve(self._clock.monotonic(), cost))

    def on_garbage(self, error: Exception) -> None:
        """Take in what the tap could not read."""
        self._ear.on_garbage(error)

    def _take(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic()
        self._ear.on_message()
        self._closing.timeframe = self._rest.grid.timeframe
        try:
            final = self._closing.update(
                symbol, open_ms, values, closed=closed, now_ms=now_ms, now_s=now_s
            )
        except OffGrid:
            # It cannot be used, but the stream is not silent.
            self._vigil.heard(symbol, self._rest.grid.timeframe.floor(now_ms), now_s)
            raise
        forming = self._closing.forming(symbol)
        newest = forming or final
        if newest is not None:
            self._vigil.heard(symbol, newest.open_ms, now_s)
        if self._incomplete:
            self._note_heard(symbol, forming, flagged=closed is not None)
        if final is not None:
            self._ear.on_final(final)
        if forming is not None:
            self._ear.on_forming(forming)

    def _note_heard(self, symbol: str, forming: Candle | None, *, flagged: bool) -> None:
        if forming is None:
            return
        if symbol in self._unheard:
            self._unheard.discard(symbol)
            self.heard.set()
            self._ear.on_first(symbol, forming.open_ms)
        # Without a flag the first candle only primes: its close is for the predecessor to tell.
        if flagged or not self._closing.is_priming(symbol):
            self._incomplete.discard(symbol)
            if not self._incomplete:
                self.complete.set()

    async def _keep_vigil(self) -> None:
        """Look for suspicious silence until it proves to be deafness."""
        while not self.deaf.is_set():
            await self._clock.sleep(self._interval_s / _LOOKS)
            for symbol in self._vigil.suspects(self._clock.monotonic()):
                if await self._is_deaf_to(symbol):
                    silent_s = self._clock.monotonic() - self._vigil.heard_s(symbol)
                    self.silence = f"the stream keeps silent about {symbol} since {silent_s:.0f} s"
                    self.deaf_to = [symbol] if self.heard.is_set() else self._shard
                    self.deaf.set()
                    break

    async def _is_deaf_to(self, symbol: str) -> bool:
        heard_s = self._vigil.heard_s(symbol)
        try:
            seen = await self._rest.last_trade(symbol)
        except ExchangeError:
            seen = None
        if not self._vigil.probed(symbol, seen, self._clock.monotonic()):
            return False
        await self._clock.sleep(self._interval_s * _PATIENCE)
        return self._vigil.heard_s(symbol) == heard_s


def _topics(exchange: Any, shard: Sequence[str], timeframe: str) -> list[list[list[str]]]:  # noqa: ANN401
    """How to subscribe: all in one call where the exchange can, else one call a symbol."""
    pairs = [[symbol, timeframe] for symbol in shard]
    return [pairs] if exchange.has.get("watchOHLCVForSymbols") else [[pair] for pair in pairs]


async def _close(exchange: Any) -> None:  # noqa: ANN401
    """Close ccxt's client, all of it, even when cancelled meanwhile."""
    try:
        await exchange.close()
    except asyncio.CancelledError:
        # The goodbye to a peer that does not answer takes seconds. The second attempt does not wait
        # for it; without one the sockets would stay.
        await exchange.close()
        raise


async def _watch(exchange: Any, pairs: list[list[str]]) -> None:  # noqa: ANN401
    """Subscribe and stay subscribed; what arrives goes through the tap, not through here."""
    import ccxt

    while True:
        try:
            if exchange.has.get("watchOHLCVForSymbols"):
                await exchange.watch_ohlcv_for_symbols(pairs)
            else:
                await exchange.watch_ohlcv(*pairs[0])
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            # ccxt trips over what it does not know, as Bitget's stream of two hours.
            msg = f"ccxt cannot ask for candles of {pairs[0][1]}: {error!r}"
            raise ccxt.NotSupported(msg) from error
