"""Provide an exchange's candles: live by websocket, earlier and missed ones by REST."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from daemon.candles.volume_check import VolumeCheck
from daemon.candles.volume_comparison import Finding, Verdict
from daemon.exchange.rest import RestClient
from daemon.exchange.source import MarketSource, streams_per_connection
from daemon.exchange.volume_units import is_unit_known
from daemon.feed.connection_supervisor import ConnectionSupervisor
from daemon.feed.silent_symbols import SilentSymbols
from daemon.feed.symbol_allocation import assign_symbols, market_kind
from model.core.errors import OffGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.candles.grid import Grid
    from daemon.exchange.exchange_clock import ExchangeClock
    from daemon.metrics.metrics import Metrics
    from model.core.candle import Candle

log = logging.getLogger("candlecast.feed")

_RENEW_AFTER_S: Final = 23 * 3_600.0
"""Exchanges close every connection after 24 hours."""

_RENEW_STAGGER_S: Final = 60.0
"""Time between the renewals of two connections."""

_POLL_INTERVAL_S: Final = 0.5
"""How often to look for symbols whose volumes are still to be compared."""


class Feed:
    """Websocket subscriptions that restore themselves, and a REST history on request.

    ``on_closed`` is called in the exchange's message handler, without a queue in between: it must
    return at once.

    Attributes:
        silent_symbols: traded symbols that the websockets send nothing about.
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
            clock: measures and shows the exchange's time.
            metrics: counts refused messages and reconnections.
            on_closed: receives each final candle.
            on_resumed: receives each symbol with its first update on a new connection, and the
                opening time of the forming candle: candles before it may have been missed.
            on_forming: receives each update of a candle that has not closed; None: not needed.
            ask_history: requests the newest history of a symbol, to compare its volumes with
                those of the stream; None: they are compared only when it is fetched anyway.
        """
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._on_closed = on_closed
        self._on_forming = on_forming
        self._ask_history = ask_history
        self._volumes = VolumeCheck(
            source.timeframe, lambda symbol: is_unit_known(source.name, symbol), self._contract_size
        )
        self._rest = RestClient(source, clock, metrics, self.on_unusable_message)
        # Kinds of unusable messages that were logged.
        self._logged_errors: set[type[Exception]] = set()
        # Raised by a receiver of candles; ends `run`.
        self._failure: Exception | None = None
        # Set when there is a new supervisor or a failure.
        self._changed = asyncio.Event()
        self._supervisors: list[ConnectionSupervisor] = []
        self._on_resumed = on_resumed
        # Symbols that the exchange does not stream now.
        self._refused: set[str] = set()
        self.silent_symbols = SilentSymbols(source.timeframe)

    @property
    def grid(self) -> Grid:
        """Opening times of the exchange's candles, as far as known."""
        return self._rest.grid

    def earliest_ms(self) -> int:
        """As `RestClient.earliest_ms`."""
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
        """Fetch the closed candles of a symbol, see `RestClient.history`; none of a refused one.

        Raises:
            ExchangeError: the exchange did not answer.
        """
        # The history of a delisted symbol ends in flat candles, which would be forecast as if the
        # market only had no trades.
        if symbol in self._refused:
            return []
        candles = await self._rest.history(symbol, since_ms)
        if (finding := self._volumes.compare(symbol, candles)) is not None:
            self._log_volume_finding(symbol, finding)
        self.silent_symbols.on_history(candles)
        return candles

    def on_message(self) -> None:
        """Count an update."""
        self._metrics.feed.messages.value += 1.0

    def on_candle_closed(self, candle: Candle) -> None:
        """Pass on a closed candle."""
        self.silent_symbols.on_update(candle)
        # `Backfill` fetches a candle that is withheld here, as overdue.
        if (usable := self._volumes.convert(candle)) is not None:
            self._on_closed(usable)
        else:
            self._metrics.forecasts.observe_delay(candle)

    def on_candle_update(self, candle: Candle) -> None:
        """Pass on the state of a candle before its close."""
        self.silent_symbols.on_update(candle)
        if self._on_forming is not None and (usable := self._volumes.convert(candle)) is not None:
            self._on_forming(usable)

    def on_first_update(self, symbol: str, forming_ms: int) -> None:
        """Pass on that a symbol's first update has come on a new connection."""
        if symbol in self._refused:
            log.info("%s streams %s again", self._source.name, symbol)
            self._refused.discard(symbol)
        self._volumes.request_comparison(symbol)
        self._on_resumed(symbol, forming_ms)

    def on_stalled(self, symbols: Sequence[str]) -> None:
        """Note that a connection did not send trades of these."""
        self.silent_symbols.on_stalled(symbols)

    def on_connection_lost(self, symbols: Sequence[str]) -> None:
        """Note that there is no connection for these."""
        self.silent_symbols.on_connection_lost(symbols, self._clock.monotonic())

    def on_unusable_message(self, error: Exception) -> None:
        """Count a message that cannot be used; log the first of each kind of error."""
        self._metrics.feed.refused.inc()
        if isinstance(error, OffGrid):
            self._metrics.feed.off_grid.inc()
        if type(error) not in self._logged_errors:
            self._logged_errors.add(type(error))
            log.warning("refused a message of %s: %r", self._source.name, error)

    def on_receiver_error(self, error: Exception) -> None:
        """End the feed with the error of a receiver."""
        self._failure = error
        self._changed.set()

    async def run(self) -> None:
        """Keep every subscription alive until cancelled.

        Raises:
            Exception: what a receiver of candles raised.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rest.keep_time(), name="feed-time")
            group.create_task(self._compare_volumes(), name="feed-volumes")
            self.watch_symbols(self._source.symbols)
            number = 0
            while self._failure is None:
                self._changed.clear()
                for supervisor in self._supervisors[number:]:
                    group.create_task(supervisor.run(), name=f"feed-{number}")
                    number += 1
                await self._changed.wait()
            raise self._failure

    @property
    def rest_only(self) -> list[str]:
        """Symbols whose candles come from REST alone, since the stream's volumes differ."""
        return self._volumes.refused_symbols()

    async def _compare_volumes(self) -> None:
        """Request the history that a comparison needs, a symbol at a time, until cancelled."""
        while True:
            await self._clock.sleep(_POLL_INTERVAL_S)
            counts = self._volumes.count_verdicts()
            for verdict in Verdict:
                self._metrics.feed.set_volume_verdict(verdict.value, counts[verdict])
            symbol = self._volumes.symbol_due(self._clock.wall_ms())
            if symbol is not None and self._ask_history is not None:
                self._ask_history(symbol)

    def _contract_size(self, symbol: str) -> float | None:
        size: float | None = self._rest.exchange.market(symbol).get("contractSize")
        return size

    def _log_volume_finding(self, symbol: str, finding: Finding) -> None:
        name, (verdict, factor, reason) = self._source.name, finding
        if verdict is Verdict.SCALED:
            text = "%s: volumes of %s are %g times as large by REST as by websocket: scaled"
            log.warning(text, name, symbol, factor)
        elif verdict is Verdict.REFUSED:
            text = (
                "%s: volumes of %s by websocket and by REST cannot be reconciled (%s); "
                "its candles are taken from REST, some seconds late"
            )
            log.warning(text, name, symbol, reason)
        else:
            log.info("%s: volumes of %s are the same by websocket and by REST", name, symbol)

    async def check_symbols(self, symbols: Sequence[str]) -> None:
        """Check that the exchange offers further symbols.

        Raises:
            ExchangeError: unreachable, or without one of them.
        """
        await self._rest.check_symbols(symbols)

    def watch_symbols(self, symbols: Sequence[str]) -> None:
        """Subscribe to these symbols and to no others, from now on.

        A connection whose symbols stay the same is kept. Any other is replaced once its successor
        has received updates of all its symbols.
        """
        size = streams_per_connection(self._source.name)
        self._refused.intersection_update(symbols)
        self._volumes.set_symbols(symbols)
        self.silent_symbols.set_symbols(symbols, self._clock.wall_ms(), self._clock.monotonic())
        current = [supervisor.symbols for supervisor in self._supervisors]
        assigned = assign_symbols(current, symbols, self._connection_kind, size)
        for supervisor, group in zip(self._supervisors, assigned, strict=False):
            supervisor.watch_symbols(group)
        for group in assigned[len(current) :]:
            self._add_supervisor(group)
        self._changed.set()

    def _add_supervisor(self, symbols: Sequence[str]) -> None:
        renew_s = _RENEW_AFTER_S - len(self._supervisors) * _RENEW_STAGGER_S
        self._supervisors.append(
            ConnectionSupervisor(
                self._source, symbols, self._rest, self._clock, self._metrics, self, renew_s
            )
        )

    def on_symbols_refused(self, symbols: Sequence[str]) -> None:
        """Move symbols that the exchange does not stream to connections of their own."""
        name, new = self._source.name, [s for s in symbols if s not in self._refused]
        if new:
            log.warning("%s refuses to stream %s; no forecasts of it", name, ", ".join(new))
        self._refused.update(symbols)
        for supervisor in self._supervisors:
            others = [symbol for symbol in supervisor.symbols if symbol not in symbols]
            if others and len(others) < len(supervisor.symbols):
                supervisor.watch_symbols(others)
                for symbol in symbols:
                    self._add_supervisor([symbol])
                break
        self._changed.set()

    def _connection_kind(self, symbol: str) -> object:
        """What the symbols of one connection have in common."""
        market = self._rest.exchange.market(symbol)
        # A refused symbol ends the connection of all that share it.
        return market_kind(market), symbol if symbol in self._refused else None
