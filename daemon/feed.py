"""Candles in: ccxt websockets for the live edge, ccxt REST for what came before or was missed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.closing import SETTLED_MS, ClosingRule, final_by_rest
from daemon.exchange import check_market, make_exchange, network_errors, refusal
from daemon.groups import expected
from daemon.tap import tapped
from model.errors import BadCandle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.clock import Clock
    from daemon.metrics import Metrics
    from model.candle import Candle, Timeframe

log = logging.getLogger(__name__)

_SYMBOLS_PER_CONNECTION = 200
"""Binance advises against more streams on one connection; others allow at least as many."""

_PAGE = 1000
_HOLE_ROWS = 200
"""How far to step over an empty page: less than any exchange's page, so that nothing is missed."""

_BACKOFF_S = (0.5, 30.0)


class Source(NamedTuple):
    """Where candles come from.

    Attributes:
        name: ccxt exchange id.
        endpoint_rest: replaces scheme, host and port of REST addresses; None keeps them.
        endpoint_ws: the same for websocket addresses.
        symbols: ccxt symbols.
        timeframe: the grid.
    """

    name: str
    endpoint_rest: str | None
    endpoint_ws: str | None
    symbols: tuple[str, ...]
    timeframe: Timeframe


class Feed:
    """Websocket subscriptions that restore themselves, and a REST history on request.

    Closed candles are handed to ``on_closed`` in the exchange's message handler, without a queue
    in between: whoever receives them must only take note.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock,
        metrics: Metrics,
        on_closed: Callable[[Candle], None],
        on_resumed: Callable[[str, int], None],
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            source: exchange, symbols and timeframe.
            clock: the injected clock.
            metrics: counts what is refused and what reconnects.
            on_closed: receives each final candle.
            on_resumed: told of each symbol's first update on a new connection, with the opening
                time of the candle that is forming: whatever closed before it may have been missed.
        """
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._on_closed = on_closed
        self._on_resumed = on_resumed
        self._resuming: set[str] = set()
        self._closing = ClosingRule(source.timeframe, max_skew_ms=1_000)
        self._rest: Any = None
        self._garbage_logged: set[type[Exception]] = set()
        self._failed = asyncio.Event()
        self._failure: Exception | None = None

    async def open(self) -> None:
        """Load the exchange's markets and check that it can do what is asked.

        Raises:
            ExchangeError: unreachable, or without the symbol, timeframe or candle stream.
        """
        source = self._source
        self._rest = make_exchange(
            source.name, source.endpoint_rest, source.endpoint_ws, symbols=source.symbols
        )
        try:
            await self._rest.load_markets()
        except network_errors() as error:
            raise refusal(source.name, "loading its markets", error) from None
        check_market(self._rest, source.symbols, source.timeframe.text, ability="watchOHLCV")

    async def close(self) -> None:
        """Close the REST client."""
        if self._rest is not None:
            await self._rest.close()

    async def history(self, symbol: str, since_ms: int) -> list[Candle]:
        """Fetch the closed candles of a symbol that opened at ``since_ms`` or later.

        Candles that cannot be true are left out and counted.

        Raises:
            ExchangeError: the exchange did not answer.
        """
        frame = self._source.timeframe
        candles: list[Candle] = []
        end_ms = self._clock.wall_ms() - frame.ms - SETTLED_MS
        while True:
            asked_ms = self._clock.wall_ms()
            try:
                page = await self._rest.fetch_ohlcv(symbol, frame.text, since_ms, _PAGE)
            except network_errors() as error:
                raise refusal(self._source.name, f"fetching {symbol} candles", error) from None
            arrived = self._clock.wall_ms(), self._clock.monotonic()
            final, impossible = final_by_rest(symbol, page, frame, asked_ms, arrived)
            for reason in impossible:
                self.on_garbage(reason)
            fresh = [candle for candle in final if candle.open_ms >= since_ms]
            candles += fresh
            # How long a page may be is the exchange's affair: a short one need not be the last.
            since_ms = fresh[-1].close_ms if fresh else since_ms + _HOLE_ROWS * frame.ms
            if since_ms > end_ms:
                return candles

    def on_raw(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        """Take in one update from the tap."""
        try:
            self._take(symbol, open_ms, values, closed=closed)
        except BadCandle as error:
            self.on_garbage(error)
        except Exception as error:  # noqa: BLE001 - the tap would take a bug of ours for garbage
            self._failure = error
            self._failed.set()

    def _take(
        self, symbol: str, open_ms: object, values: tuple[object, ...], *, closed: bool | None
    ) -> None:
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic()
        self._metrics.feed_messages.inc()
        final = self._closing.update(
            symbol, open_ms, values, closed=closed, now_ms=now_ms, now_s=now_s
        )
        if symbol in self._resuming and (forming := self._closing.forming(symbol)) is not None:
            self._resuming.discard(symbol)
            self._on_resumed(symbol, forming.open_ms)
        if final is not None:
            self._metrics.exchange_delay.observe(max(0, now_ms - final.close_ms) / 1000)
            self._on_closed(final)

    def on_garbage(self, error: Exception) -> None:
        """Count something from the exchange that cannot be used; log the first of a kind."""
        self._metrics.feed_refused.inc()
        if type(error) not in self._garbage_logged:
            self._garbage_logged.add(type(error))
            log.warning("refused a message of %s: %r", self._source.name, error)

    async def run(self) -> None:
        """Keep every subscription alive until cancelled; ends by raising what a receiver raised."""
        async with asyncio.TaskGroup() as group:
            for number, shard in enumerate(_shards(self._rest, self._source.symbols)):
                group.create_task(self._supervise(shard), name=f"feed-{number}")
            await self._failed.wait()
            assert self._failure is not None  # noqa: S101 - set before the event
            raise self._failure

    async def _supervise(self, shard: Sequence[str]) -> None:
        shortest, longest = _BACKOFF_S
        delay = shortest
        broken = False
        while True:
            started = self._clock.monotonic()
            try:
                await self._subscribe(shard)
            except network_errors() as error:
                self._metrics.feed_reconnects.inc()
                if not broken:
                    log.warning("lost the candle stream of %d symbols: %s", len(shard), error)
                    broken = True
            if self._clock.monotonic() - started > longest:
                delay, broken = shortest, False
            await self._clock.sleep(delay)
            delay = min(delay * 2, longest)

    async def _subscribe(self, shard: Sequence[str]) -> None:
        """Watch a shard on a connection of its own; returns only by raising."""
        source = self._source
        exchange = make_exchange(
            source.name, source.endpoint_rest, source.endpoint_ws, wrap=lambda c: tapped(c, self)
        )
        try:
            exchange.set_markets_from_exchange(self._rest)
            exchange.watch_candles(shard, source.timeframe.text)
            self._closing.forget(shard)
            self._resuming.update(shard)
            async with asyncio.TaskGroup() as group:
                for topic in _topics(exchange, shard, source.timeframe.text):
                    group.create_task(_watch(exchange, topic))
        except ExceptionGroup as group_error:
            raise expected(group_error, network_errors()) from None
        finally:
            await exchange.close()


def _shards(exchange: Any, symbols: Sequence[str]) -> list[list[str]]:  # noqa: ANN401
    """Share symbols out among connections; spot and derivatives have addresses of their own."""
    kinds: dict[object, list[str]] = {}
    for symbol in symbols:
        market = exchange.market(symbol)
        kinds.setdefault((market["type"], market["subType"]), []).append(symbol)
    size = _SYMBOLS_PER_CONNECTION
    return [kind[at : at + size] for kind in kinds.values() for at in range(0, len(kind), size)]


def _topics(exchange: Any, shard: Sequence[str], timeframe: str) -> list[list[list[str]]]:  # noqa: ANN401
    """How to subscribe: all in one call where the exchange can, else one call a symbol."""
    pairs = [[symbol, timeframe] for symbol in shard]
    return [pairs] if exchange.has.get("watchOHLCVForSymbols") else [[pair] for pair in pairs]


async def _watch(exchange: Any, pairs: list[list[str]]) -> None:  # noqa: ANN401
    """Subscribe and stay subscribed; what arrives goes through the tap, not through here."""
    while True:
        if exchange.has.get("watchOHLCVForSymbols"):
            await exchange.watch_ohlcv_for_symbols(pairs)
        else:
            await exchange.watch_ohlcv(*pairs[0])
