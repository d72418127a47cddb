"""Candles in: ccxt websockets for the live edge, ccxt REST for what came before or was missed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from daemon.candles.volume_check import Finding, Verdict, VolumeCheck
from daemon.exchange.rest import RestClient
from daemon.exchange.source import MarketSource, streams_per_connection
from daemon.exchange.volume_units import is_known
from daemon.feed.shard import StreamSupervisor
from daemon.feed.silent_symbols import Hearing
from model.core.errors import OffGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemon.candles.grid import Grid
    from daemon.exchange.exchange_clock import ExchangeClock
    from daemon.metrics.metrics import Metrics
    from model.core.candle import Candle

log = logging.getLogger("candlecast.feed")

_RENEW_S: Final = 23 * 3_600.0
"""Exchanges close every connection after 24 hours."""

_APART_S: Final = 60.0
"""Connections are renewed one after the other."""

_LOOK_S: Final = 0.5
"""How often symbols are looked for whose volumes are still to be compared."""


class Feed:
    """Websocket subscriptions that restore themselves, and a REST history on request.

    Closed candles are handed to ``on_closed`` in the exchange's message handler, without a queue
    in between: whoever receives them must only take note.

    Attributes:
        hearing: of which symbols the websockets say nothing.
    """

    def __init__(
        self,
        source: MarketSource,
        clock: ExchangeClock,
        metrics: Metrics,
        on_closed: Callable[[Candle], None],
        on_resumed: Callable[[str, int], None],
        on_forming: Callable[[Candle], None] | None = None,
        ask_history: Callable[[str], None] | None = None,
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
            ask_history: asks for the newest history of a symbol, so that its volumes can be
                compared with those of the stream; None: they are when it is fetched anyway.
        """
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._on_closed = on_closed
        self._on_forming = on_forming
        self._ask_history = ask_history
        self._volumes = VolumeCheck(
            source.timeframe, lambda symbol: is_known(source.name, symbol), self._contract_size
        )
        self._rest = RestClient(source, clock, metrics, self.on_garbage)
        self._garbage_logged: set[type[Exception]] = set()
        self._failure: Exception | None = None
        self._news = asyncio.Event()
        self._streams: list[StreamSupervisor] = []
        self._on_resumed = on_resumed
        self._refused: set[str] = set()
        self.hearing = Hearing(source.timeframe)

    @property
    def grid(self) -> Grid:
        """When the exchange's candles begin, as far as is known."""
        return self._rest.grid

    def earliest_ms(self) -> int:
        """As `Rest.earliest_ms`."""
        return self._rest.earliest_ms()

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
        """Fetch the closed candles of a symbol, see `Rest.history`; none of a refused one.

        Raises:
            ExchangeError: the exchange did not answer.
        """
        # What an exchange does not trade any more stands still in its history: that would pass
        # for a market without trades, and be forecast.
        if symbol in self._refused:
            return []
        candles = await self._rest.history(symbol, since_ms)
        if (finding := self._volumes.compare(symbol, candles)) is not None:
            self._note_volume(symbol, finding)
        self.hearing.recorded(candles)
        return candles

    def on_message(self) -> None:
        """Count an update."""
        self._metrics.feed_messages.value += 1.0

    def on_final(self, candle: Candle) -> None:
        """Hand on a closed candle."""
        self.hearing.told(candle)
        # One that is withheld is fetched as overdue.
        if (usable := self._volumes.take(candle)) is not None:
            self._on_closed(usable)
        else:
            self._metrics.observe_delay(candle)

    def on_forming(self, candle: Candle) -> None:
        """Hand on a candle as it is before its close."""
        self.hearing.told(candle)
        if self._on_forming is not None and (usable := self._volumes.take(candle)) is not None:
            self._on_forming(usable)

    def on_first(self, symbol: str, forming_ms: int) -> None:
        """Hand on that a symbol is heard on a new connection."""
        if symbol in self._refused:
            log.info("%s streams %s again", self._source.name, symbol)
            self._refused.discard(symbol)
        self._volumes.renew(symbol)
        self._on_resumed(symbol, forming_ms)

    def on_deaf(self, symbols: Sequence[str]) -> None:
        """Note that a connection has kept trades of these to itself."""
        self.hearing.deaf(symbols)

    def on_lost(self, symbols: Sequence[str]) -> None:
        """Note that there is no connection for these."""
        self.hearing.lost(symbols, self._clock.monotonic())

    def on_garbage(self, error: Exception) -> None:
        """Count something from the exchange that cannot be used; log the first of a kind."""
        self._metrics.feed_refused.inc()
        if isinstance(error, OffGrid):
            self._metrics.feed_off_grid.inc()
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
            group.create_task(self._compare_volumes(), name="feed-volumes")
            self.watch(self._source.symbols)
            number = 0
            while self._failure is None:
                self._news.clear()
                for stream in self._streams[number:]:
                    group.create_task(stream.run(), name=f"feed-{number}")
                    number += 1
                await self._news.wait()
            raise self._failure

    @property
    def rest_only(self) -> list[str]:
        """Symbols whose candles come from the history alone, for the stream's volumes differ."""
        return self._volumes.refused()

    async def _compare_volumes(self) -> None:
        """Ask for the history where a comparison needs it, a symbol at a time, until cancelled."""
        while True:
            await self._clock.sleep(_LOOK_S)
            counts = self._volumes.counts()
            for verdict in Verdict:
                self._metrics.show_volumes(verdict.value, counts[verdict])
            symbol = self._volumes.due(self._clock.wall_ms())
            if symbol is not None and self._ask_history is not None:
                self._ask_history(symbol)

    def _contract_size(self, symbol: str) -> float | None:
        size: float | None = self._rest.exchange.market(symbol).get("contractSize")
        return size

    def _note_volume(self, symbol: str, finding: Finding) -> None:
        name, (verdict, factor, reason) = self._source.name, finding
        if verdict is Verdict.SCALED:
            told = "%s: volumes of %s are %g times as large by REST as by websocket: scaled"
            log.warning(told, name, symbol, factor)
        elif verdict is Verdict.REFUSED:
            told = (
                "%s: volumes of %s by websocket and by REST cannot be reconciled (%s); "
                "its candles are taken from REST, some seconds late"
            )
            log.warning(told, name, symbol, reason)
        else:
            log.info("%s: volumes of %s are the same by websocket and by REST", name, symbol)

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
        self._refused.intersection_update(symbols)
        self._volumes.follow(symbols)
        self.hearing.expect(symbols, self._clock.wall_ms(), self._clock.monotonic())
        before = [stream.symbols for stream in self._streams]
        after = share_out(before, symbols, self._kind, size)
        for stream, chosen in zip(self._streams, after, strict=False):
            stream.watch(chosen)
        for chosen in after[len(before) :]:
            self._add_stream(chosen)
        self._news.set()

    def _add_stream(self, symbols: Sequence[str]) -> None:
        renew_s = _RENEW_S - len(self._streams) * _APART_S
        self._streams.append(
            StreamSupervisor(
                self._source, symbols, self._rest, self._clock, self._metrics, self, renew_s
            )
        )

    def on_refused(self, symbols: Sequence[str]) -> None:
        """Go on without symbols that the exchange does not stream; each is asked for by itself."""
        name, told = self._source.name, [s for s in symbols if s not in self._refused]
        if told:
            log.warning("%s refuses to stream %s; no forecasts of it", name, ", ".join(told))
        self._refused.update(symbols)
        for stream in self._streams:
            rest = [symbol for symbol in stream.symbols if symbol not in symbols]
            if rest and len(rest) < len(stream.symbols):
                stream.watch(rest)
                for symbol in symbols:
                    self._add_stream([symbol])
                break
        self._news.set()

    def _kind(self, symbol: str) -> object:
        """Spot and derivatives have addresses of their own."""
        market = self._rest.exchange.market(symbol)
        # A refused symbol would take along those that share its connection.
        return kind_of(market), symbol if symbol in self._refused else None


def kind_of(market: Mapping[str, Any]) -> object:
    """What a market shares with those that can be watched on one connection with it."""
    return market["type"], market["subType"]


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
