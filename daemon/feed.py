"""Candles in: ccxt websockets for the live edge, ccxt REST for what came before or was missed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from daemon.connection import Connection
from daemon.exchange import network_errors
from daemon.groups import expected
from daemon.rest import Rest
from daemon.source import Source, streams_per_connection
from daemon.vigil import expected_interval_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.metrics import Metrics
    from daemon.offset import ExchangeClock
    from model.candle import Candle

log = logging.getLogger(__name__)

_BACKOFF_S: Final = (0.5, 30.0)

_RENEW_S: Final = 23 * 3_600.0
"""Exchanges close every connection after 24 hours."""

_APART_S: Final = 60.0
"""Connections are renewed one after the other."""

_HANDOVER_S: Final = 30.0
"""A new connection has so long to be heard of all its symbols before the old one goes."""

_LASTING: Final = 10
"""Expected intervals after which a connection that went deaf was none that is born deaf."""

_LONGEST_INTERVAL_S: Final = 6 * 3_600.0


class Feed:
    """Websocket subscriptions that restore themselves, and a REST history on request.

    Closed candles are handed to ``on_closed`` in the exchange's message handler, without a queue
    in between: whoever receives them must only take note.
    """

    def __init__(
        self,
        source: Source,
        clock: ExchangeClock,
        metrics: Metrics,
        on_closed: Callable[[Candle], None],
        on_resumed: Callable[[str, int], None],
        on_forming: Callable[[Candle], None] | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            source: exchange, symbols and timeframe.
            clock: tells the exchange's time and learns it.
            metrics: counts what is refused and what reconnects.
            on_closed: receives each final candle.
            on_resumed: told of each symbol's first update on a new connection, with the opening
                time of the candle that is forming: whatever closed before it may have been missed.
            on_forming: receives each update of a candle that has not closed, if anybody wants it.
        """
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._on_closed = on_closed
        self._on_forming = on_forming
        self._rest = Rest(source, clock, metrics, self.on_garbage)
        self._garbage_logged: set[type[Exception]] = set()
        self._failure: Exception | None = None
        self._news = asyncio.Event()
        self._shards: list[_Shard] = []
        self.on_first = on_resumed

    async def open(self) -> None:
        """Load the exchange's markets and check that it can do what is asked.

        Raises:
            ExchangeError: unreachable, or without the symbol, timeframe or candle stream.
        """
        await self._rest.open()

    async def close(self) -> None:
        """Close the REST client."""
        await self._rest.close()

    async def history(self, symbol: str, since_ms: int) -> list[Candle]:
        """Fetch the closed candles of a symbol, see `Rest.history`.

        Raises:
            ExchangeError: the exchange did not answer.
        """
        return await self._rest.history(symbol, since_ms)

    def on_message(self) -> None:
        """Count an update."""
        self._metrics.feed_messages.inc()

    def on_final(self, candle: Candle) -> None:
        """Hand on a closed candle."""
        delay_ms = candle.received_ms - candle.close_ms
        self._metrics.exchange_delay.observe(max(0, delay_ms) / 1000)
        self._on_closed(candle)

    def on_forming(self, candle: Candle) -> None:
        """Hand on a candle as it is before its close."""
        if self._on_forming is not None:
            self._on_forming(candle)

    def on_garbage(self, error: Exception) -> None:
        """Count something from the exchange that cannot be used; log the first of a kind."""
        self._metrics.feed_refused.inc()
        if type(error) not in self._garbage_logged:
            self._garbage_logged.add(type(error))
            log.warning("refused a message of %s: %r", self._source.name, error)

    def on_bug(self, error: Exception) -> None:
        """End the feed with what a receiver raised."""
        self._failure = error
        self._news.set()

    async def run(self) -> None:
        """Keep every subscription alive until cancelled; ends by raising what a receiver raised."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rest.keep_time(), name="feed-time")
            self.watch(self._source.symbols)
            number = 0
            while self._failure is None:
                self._news.clear()
                for shard in self._shards[number:]:
                    group.create_task(self._supervise(shard, number), name=f"feed-{number}")
                    number += 1
                await self._news.wait()
            raise self._failure

    async def know(self, symbols: Sequence[str]) -> None:
        """Check that the exchange offers further symbols.

        Raises:
            ExchangeError: unreachable, or without one of them.
        """
        await self._rest.know(symbols)

    def watch(self, symbols: Sequence[str]) -> None:
        """Subscribe to these symbols and to no others, from now on.

        Connections whose symbols stay the same are left alone; the others are replaced one by one,
        the old going when the new has been heard of all its symbols.
        """
        size = streams_per_connection(self._source.name)
        before = [shard.symbols for shard in self._shards]
        after = share_out(before, symbols, self._kind, size)
        for shard, chosen in zip(self._shards, after, strict=False):
            if shard.symbols != chosen:
                shard.symbols = chosen
                shard.changed.set()
        self._shards += [_Shard(chosen) for chosen in after[len(before) :]]
        self._news.set()

    def _kind(self, symbol: str) -> object:
        """Spot and derivatives have addresses of their own."""
        market = self._rest.exchange.market(symbol)
        return market["type"], market["subType"]

    async def _supervise(self, shard: _Shard, number: int) -> None:
        """Connect again and again."""
        shortest, longest = _BACKOFF_S
        delay = shortest
        broken = False
        while True:
            if not shard.symbols:
                await shard.changed.wait()
            started = self._clock.monotonic()
            try:
                await self._relay(shard, _RENEW_S - number * _APART_S)
            except network_errors() as error:
                self._metrics.feed_reconnects.inc()
                if not broken:
                    count = len(shard.symbols)
                    log.warning("lost the candle stream of %d symbols: %s", count, error)
                    broken = True
            if self._clock.monotonic() - started > longest:
                delay, broken = shortest, False
            await self._clock.sleep(delay)
            delay = min(delay * 2, longest)

    async def _relay(self, shard: _Shard, renew_s: float) -> None:
        """One connection after another, each replaced before it ends.

        Ends only by raising, or when the shard has no symbols any more.
        """
        usual_s = interval_s = expected_interval_s(self._source.timeframe.ms)
        old: asyncio.Task[None] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                while shard.symbols:
                    started_s = self._clock.monotonic()
                    shard.changed.clear()
                    link = Connection(
                        self._source, shard.symbols, self._rest, self._clock, self, interval_s
                    )
                    task = group.create_task(link.run())
                    if old is not None:
                        await self._within(_HANDOVER_S, link.complete)
                        old.cancel()
                    old = task
                    await self._within(renew_s, link.deaf, shard.changed)
                    if not link.deaf.is_set():
                        if not shard.changed.is_set():
                            self._metrics.feed_renewals.inc()
                        interval_s = usual_s
                        continue
                    self._metrics.feed_silent.inc()
                    task.cancel()
                    old = None
                    # Some exchanges speak less often than expected: they are given more time.
                    lasted_s = self._clock.monotonic() - started_s
                    lasting = lasted_s > _LASTING * interval_s
                    interval_s = usual_s if lasting else min(2 * interval_s, _LONGEST_INTERVAL_S)
                if old is not None:
                    old.cancel()
        except ExceptionGroup as group_error:
            raise expected(group_error, network_errors()) from None

    async def _within(self, seconds: float, *events: asyncio.Event) -> None:
        """Wait for one of ``events``, for ``seconds`` of the injected clock at most."""
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(self._clock.sleep(seconds))
            waits = [group.create_task(event.wait()) for event in events]
            await asyncio.wait((timer, *waits), return_when=asyncio.FIRST_COMPLETED)
            for task in (timer, *waits):
                task.cancel()


class _Shard:
    """The symbols of one connection after another; ``changed`` says that they are others."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = symbols
        self.changed = asyncio.Event()


def share_out(
    before: Sequence[Sequence[str]],
    symbols: Sequence[str],
    kind: Callable[[str], object],
    size: int,
) -> list[list[str]]:
    """Share symbols out among connections, changing as few as possible.

    Args:
        before: symbols of each connection that there is.
        symbols: those wanted.
        kind: symbols of different kinds cannot share a connection.
        size: most symbols of a connection.

    Returns:
        Symbols of each connection there was, none perhaps, and then of new ones.
    """
    wanted = set(symbols)
    after = [[symbol for symbol in shard if symbol in wanted] for shard in before]
    kinds = {at: kind(shard[0]) for at, shard in enumerate(after) if shard}
    placed = {symbol for shard in after for symbol in shard}
    for symbol in symbols:
        if symbol in placed:
            continue
        mine = kind(symbol)
        fitting = (
            at
            for at, shard in enumerate(after)
            if len(shard) < size and kinds.get(at, mine) == mine
        )
        at = next(fitting, len(after))
        if at == len(after):
            after.append([])
        after[at].append(symbol)
        kinds[at] = mine
    return after
