"""The connections of one shard: opened, renewed, replaced when deaf; what breaks is said once."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from daemon.exchange.ccxt_client import network_errors
from daemon.exchange.rate_limits import BANNING
from daemon.feed.connection import Connection, ConnectionListener
from daemon.feed.liveness import expected_interval_s
from daemon.runtime.tasks import unwrap_expected, wait_first

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.exchange.rest import RestClient
    from daemon.exchange.source import MarketSource
    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.feed")

_BACKOFF_S: Final = (0.5, 30.0)

_REFUSED_S: Final = 900.0
"""A symbol that the exchange refuses is rarely listed again within minutes."""

_HANDOVER_S: Final = 30.0
"""Beyond its subscribing and one candle, a new connection has so long to be heard of all its
symbols before the old one goes."""

_LONGEST_HANDOVER_S: Final = 1_800.0
"""By then the exchange may end the old one."""

_AGAIN_S: Final = 30.0
"""After a renewal that failed; the old connection serves on meanwhile."""

_STEADY_S: Final = 5.0
"""A connection that lasted so long is back, and worth a line."""

_LASTING: Final = 10
"""Expected intervals after which a connection that went deaf was none that is born deaf."""

_LONGEST_INTERVAL_S: Final = 6 * 3_600.0


class StreamEar(ConnectionListener, Protocol):
    """Who is told what comes, and what does not come."""

    def on_refused(self, symbols: Sequence[str]) -> None:
        """The exchange does not stream these."""

    def on_deaf(self, symbols: Sequence[str]) -> None:
        """A connection has kept trades of these to itself."""

    def on_lost(self, symbols: Sequence[str]) -> None:
        """The connection for these has ended, or there was none to be had."""


class _Leg(NamedTuple):
    """One connection, when it began (monotonic) and the task that runs it."""

    link: Connection
    started_s: float
    task: asyncio.Task[None]


class StreamSupervisor:
    """Keeps the candles of some symbols coming, from one connection after another.

    Attributes:
        symbols: what is watched now, perhaps nothing.
    """

    def __init__(
        self,
        source: MarketSource,
        symbols: Sequence[str],
        rest: RestClient,
        clock: Clock,
        metrics: Metrics,
        ear: StreamEar,
        renew_s: float,
    ) -> None:
        """Prepare; `run` connects.

        Args:
            source: the exchange and the timeframe.
            symbols: of one kind, not more than the exchange allows.
            rest: its markets are shared, it is asked about silence, and it knows of bans.
            clock: the injected clock.
            metrics: counts reconnections, renewals and silence.
            ear: told of everything.
            renew_s: age at which a connection is replaced.
        """
        self.symbols = symbols
        self._source = source
        self._rest = rest
        self._clock = clock
        self._metrics = metrics
        self._ear = ear
        self._renew_s = renew_s
        self._usual_s = expected_interval_s(source.timeframe.ms)
        self._interval_s = self._usual_s
        self._broken = False
        self._changed = asyncio.Event()

    def watch(self, symbols: Sequence[str]) -> None:
        """Watch these symbols from now on; the old connection goes when the new one can do."""
        if symbols != self.symbols:
            self.symbols = symbols
            self._changed.set()

    async def run(self) -> None:
        """Connect again and again, until cancelled."""
        delay_s = _BACKOFF_S[0]
        while True:
            while not self.symbols:
                self._changed.clear()
                await self._changed.wait()
            started_s, longest_s = self._clock.monotonic(), _BACKOFF_S[1]
            try:
                await self._relay()
            except network_errors() as error:
                self._metrics.feed.reconnects.inc()
                self._ear.on_lost(self.symbols)
                if self._is_refused(error):
                    if self._changed.is_set():
                        continue
                    longest_s = _REFUSED_S
                if (headers := handshake_ban(error)) is not None:
                    self._rest.note_ban(headers, "")
                self._note_loss(f"lost the candle stream of {len(self.symbols)} symbols: {error}")
            if self._clock.monotonic() - started_s > _BACKOFF_S[1]:
                delay_s = _BACKOFF_S[0]
            await wait_first(self._clock, delay_s, self._changed)
            delay_s = min(delay_s * 2, longest_s)

    def _is_refused(self, error: Exception) -> bool:
        """Whether symbols are refused by name; whoever listens may take them out."""
        markets = self._rest.exchange.markets
        names = {symbol: (symbol, str(markets[symbol]["id"])) for symbol in self.symbols}
        refused = refused_symbols(error, names)
        if refused:
            self._ear.on_refused(refused)
        return bool(refused)

    async def _relay(self) -> None:
        """One connection after another, each replaced before it ends.

        Ends only by raising, or when there are no symbols any more.
        """
        try:
            async with asyncio.TaskGroup() as group:
                leg = await self._start(group)
                renew_s = self._renew_s
                while True:
                    link = leg.link
                    await wait_first(self._clock, renew_s, link.deaf, link.ended, self._changed)
                    if link.error is not None:
                        raise link.error
                    if link.deaf.is_set():
                        self._note_deafness(leg)
                        leg.task.cancel()
                        leg, renew_s = await self._start(group), self._renew_s
                        continue
                    successor = await self._renewed(group) if self.symbols else None
                    if self.symbols and successor is None:
                        renew_s = _AGAIN_S
                        continue
                    leg.task.cancel()
                    if successor is None:
                        return
                    leg, renew_s = successor, self._renew_s
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, network_errors()) from None

    async def _start(self, group: asyncio.TaskGroup) -> _Leg:
        """Open a connection, never within a ban."""
        while left_s := self._rest.ban_left_s():
            await self._clock.sleep(left_s)
        self._changed.clear()
        link = Connection(
            self._source, self.symbols, self._rest, self._clock, self._ear, self._interval_s
        )
        return _Leg(link, self._clock.monotonic(), group.create_task(self._live(link)))

    async def _live(self, link: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            note = group.create_task(self._note_return(link))
            await link.run()
            note.cancel()

    async def _renewed(self, group: asyncio.TaskGroup) -> _Leg | None:
        """A connection that can take over, or None when there is none to be had now."""
        self._interval_s = self._usual_s
        renewal = not self._changed.is_set()
        leg = await self._start(group)
        link, candle_s = leg.link, self._source.timeframe.ms / 1e3
        handover_s = min(_HANDOVER_S + link.subscribing_s + candle_s, _LONGEST_HANDOVER_S)
        await wait_first(self._clock, handover_s, link.complete, link.ended)
        if link.error is not None:
            if not self._is_refused(link.error):
                log.warning("no new connection, the old one goes on: %s", link.error)
            return None
        if renewal:
            self._metrics.feed.renewals.inc()
        return leg

    def _note_deafness(self, leg: _Leg) -> None:
        """Give more time to an exchange that speaks less often than expected."""
        self._metrics.feed.silent.inc()
        self._ear.on_deaf(leg.link.deaf_to)
        self._note_loss(leg.link.silence)
        lasted_s = self._clock.monotonic() - leg.started_s
        lasting = lasted_s > _LASTING * self._interval_s
        more_s = min(2 * self._interval_s, _LONGEST_INTERVAL_S)
        self._interval_s = self._usual_s if lasting else more_s

    def _note_loss(self, line: str) -> None:
        if not self._broken:
            log.warning("%s", line)
        self._broken = True

    async def _note_return(self, link: Connection) -> None:
        """Say that the stream is back; one that only comes and goes is not."""
        await link.heard.wait()
        await self._clock.sleep(_STEADY_S)
        if self._broken:
            log.info("the candle stream of %d symbols is back", len(self.symbols))
        self._broken = False


def handshake_ban(error: Exception) -> Mapping[str, Any] | None:
    """The headers of a websocket handshake that was answered with a ban; None for other errors."""
    # ccxt wraps what its HTTP library raised.
    cause: Any = error.args[0] if error.args else None
    if getattr(cause, "status", None) not in BANNING:
        return None
    return getattr(cause, "headers", None) or {}


def refused_symbols(error: Exception, names: Mapping[str, Sequence[str]]) -> list[str]:
    """The symbols that an exchange refuses by name; empty where it blames none in particular.

    Args:
        error: what ended a connection.
        names: what each symbol is called, by ccxt and by the exchange.
    """
    import ccxt

    if not isinstance(error, ccxt.ExchangeError):
        return []
    text = str(error)
    return [s for s, known in names.items() if any(_is_named(name, text) for name in known)]


def _is_named(name: str, text: str) -> bool:
    """Whether a market is named, not only as the beginning or the end of another one's name."""
    return re.search(rf"(?<![\w/-]){re.escape(name)}(?!:?[\w/-])", text) is not None
