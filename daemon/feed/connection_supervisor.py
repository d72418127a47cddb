"""Keep candles of a group of symbols coming: open, renew and replace their connection."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from daemon.exchange.ccxt_client import network_errors
from daemon.exchange.rate_limits import BAN_STATUS_CODES
from daemon.feed.connection import Connection, ConnectionListener
from daemon.feed.liveness import expected_interval_s
from daemon.runtime.backoff import Backoff
from daemon.runtime.outage import Outage
from daemon.runtime.tasks import unwrap_expected, wait_first

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.exchange.rest import RestClient
    from daemon.exchange.source import MarketSource
    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.feed")

_RECONNECT_MIN_S: Final = 0.5
_RECONNECT_MAX_S: Final = 30.0

_REFUSED_RETRY_MAX_S: Final = 900.0
"""A symbol that the exchange refuses is rarely listed again within minutes."""

_HANDOVER_EXTRA_S: Final = 30.0
"""How long a new connection may take to replace the old one, beside its subscribing and one
candle."""

_HANDOVER_MAX_S: Final = 1_800.0
"""After this time the exchange may end the old connection."""

_RENEW_RETRY_S: Final = 30.0
"""Pause after a renewal that failed; the old connection stays in use."""

_RECOVERED_AFTER_S: Final = 5.0
"""A connection that lasts this long after its first update counts as recovered."""

_MIN_LIFE_INTERVALS: Final = 10
"""A connection that stalls earlier, in expected intervals, gets more time the next time."""

_MAX_INTERVAL_S: Final = 6 * 3_600.0


class SupervisorListener(ConnectionListener, Protocol):
    """Receives candles and what keeps them from coming."""

    def on_symbols_refused(self, symbols: Sequence[str]) -> None:
        """The exchange does not stream these."""

    def on_stalled(self, symbols: Sequence[str]) -> None:
        """A connection did not send trades of these."""

    def on_connection_lost(self, symbols: Sequence[str]) -> None:
        """The connection for these has ended or could not be opened."""


class _ActiveConnection(NamedTuple):
    """A connection, when it was opened (monotonic) and the task that runs it."""

    connection: Connection
    opened_s: float
    task: asyncio.Task[None]


class ConnectionSupervisor:
    """Streams the candles of some symbols over one connection after another.

    Attributes:
        symbols: what is watched now; may be empty.
    """

    def __init__(
        self,
        source: MarketSource,
        symbols: Sequence[str],
        rest: RestClient,
        clock: Clock,
        metrics: Metrics,
        listener: SupervisorListener,
        renew_s: float,
    ) -> None:
        """Prepare; `run` connects.

        Args:
            source: the exchange and the timeframe.
            symbols: of one kind, not more than the exchange allows on a connection.
            rest: its markets are shared, it answers probes of silent symbols, and it knows of bans.
            clock: the injected clock.
            metrics: counts reconnections, renewals and stalls.
            listener: receives candles and events.
            renew_s: age at which a connection is replaced.
        """
        self.symbols = symbols
        self._source = source
        self._rest = rest
        self._clock = clock
        self._metrics = metrics
        self._listener = listener
        self._renew_s = renew_s
        self._usual_interval_s = expected_interval_s(source.timeframe.ms)
        # Expected interval between updates; longer while the exchange proves slower.
        self._interval_s = self._usual_interval_s
        self._outage = Outage(log)
        self._symbols_changed = asyncio.Event()

    def watch_symbols(self, symbols: Sequence[str]) -> None:
        """Watch these symbols from now on; a new connection replaces the old one when ready."""
        if symbols != self.symbols:
            self.symbols = symbols
            self._symbols_changed.set()

    async def run(self) -> None:
        """Keep connected until cancelled."""
        backoff = Backoff(_RECONNECT_MIN_S, _RECONNECT_MAX_S)
        while True:
            while not self.symbols:
                self._symbols_changed.clear()
                await self._symbols_changed.wait()
            started_s, refused = self._clock.monotonic(), False
            try:
                await self._run_connections()
            except network_errors() as error:
                self._metrics.feed.reconnects.inc()
                self._listener.on_connection_lost(self.symbols)
                refused = self._report_refused(error)
                if refused and self._symbols_changed.is_set():
                    continue
                if (headers := handshake_ban(error)) is not None:
                    self._rest.limiter.start_ban(headers, "")
                self._outage.begin(
                    "lost the candle stream of %d symbols: %s", len(self.symbols), error
                )
            backoff.reset_if_steady(self._clock.monotonic() - started_s)
            delay_s = backoff.next_delay_s(_REFUSED_RETRY_MAX_S if refused else None)
            await wait_first(self._clock, delay_s, self._symbols_changed)

    def _report_refused(self, error: Exception) -> bool:
        """Report symbols that an error names; the listener may take them out.

        Returns:
            Whether there are any.
        """
        markets = self._rest.exchange.markets
        names = {symbol: (symbol, str(markets[symbol]["id"])) for symbol in self.symbols}
        refused = refused_symbols(error, names)
        if refused:
            self._listener.on_symbols_refused(refused)
        return bool(refused)

    async def _run_connections(self) -> None:
        """Run one connection after another, each replaced before it ends.

        Returns when there are no symbols any more.

        Raises:
            Exception: one of `network_errors`, which ended a connection.
        """
        try:
            async with asyncio.TaskGroup() as group:
                active = await self._open_connection(group)
                renew_s = self._renew_s
                while True:
                    connection = active.connection
                    await wait_first(
                        self._clock,
                        renew_s,
                        connection.stalled,
                        connection.ended,
                        self._symbols_changed,
                    )
                    if connection.error is not None:
                        raise connection.error
                    if connection.stalled.is_set():
                        self._on_stall(active)
                        active.task.cancel()
                        active, renew_s = await self._open_connection(group), self._renew_s
                        continue
                    successor = await self._open_successor(group) if self.symbols else None
                    if self.symbols and successor is None:
                        renew_s = _RENEW_RETRY_S
                        continue
                    active.task.cancel()
                    if successor is None:
                        return
                    active, renew_s = successor, self._renew_s
        except ExceptionGroup as group_error:
            raise unwrap_expected(group_error, network_errors()) from None

    async def _open_connection(self, group: asyncio.TaskGroup) -> _ActiveConnection:
        """Open a connection, never during a ban."""
        while left_s := self._rest.limiter.ban_remaining_s():
            await self._clock.sleep(left_s)
        self._symbols_changed.clear()
        connection = Connection(
            self._source, self.symbols, self._rest, self._clock, self._listener, self._interval_s
        )
        task = group.create_task(self._run_connection(connection))
        return _ActiveConnection(connection, self._clock.monotonic(), task)

    async def _run_connection(self, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            recovery = group.create_task(self._log_recovery(connection))
            await connection.run()
            recovery.cancel()

    async def _open_successor(self, group: asyncio.TaskGroup) -> _ActiveConnection | None:
        """Open a connection that can replace the active one; None if that failed."""
        self._interval_s = self._usual_interval_s
        is_renewal = not self._symbols_changed.is_set()
        successor = await self._open_connection(group)
        connection, candle_s = successor.connection, self._source.timeframe.ms / 1e3
        handover_s = min(_HANDOVER_EXTRA_S + connection.subscribing_s + candle_s, _HANDOVER_MAX_S)
        await wait_first(self._clock, handover_s, connection.complete, connection.ended)
        if connection.error is not None:
            if not self._report_refused(connection.error):
                log.warning("no new connection, the old one stays in use: %s", connection.error)
            return None
        if is_renewal:
            self._metrics.feed.renewals.inc()
        return successor

    def _on_stall(self, active: _ActiveConnection) -> None:
        """Report a stall; expect longer intervals of an exchange whose connections all stall."""
        self._metrics.feed.silent.inc()
        self._listener.on_stalled(active.connection.stalled_symbols)
        self._outage.begin("%s", active.connection.stall_reason)
        lasted_s = self._clock.monotonic() - active.opened_s
        has_worked = lasted_s > _MIN_LIFE_INTERVALS * self._interval_s
        longer_s = min(2 * self._interval_s, _MAX_INTERVAL_S)
        self._interval_s = self._usual_interval_s if has_worked else longer_s

    async def _log_recovery(self, connection: Connection) -> None:
        """Log that the stream is back, once a connection has lasted."""
        await connection.first_update.wait()
        await self._clock.sleep(_RECOVERED_AFTER_S)
        self._outage.end("the candle stream of %d symbols is back", len(self.symbols))


def handshake_ban(error: Exception) -> Mapping[str, Any] | None:
    """The headers of a websocket handshake that was answered with a ban; None for other errors."""
    # ccxt wraps the error of its HTTP library.
    cause: Any = error.args[0] if error.args else None
    if getattr(cause, "status", None) not in BAN_STATUS_CODES:
        return None
    return getattr(cause, "headers", None) or {}


def refused_symbols(error: Exception, names: Mapping[str, Sequence[str]]) -> list[str]:
    """The symbols that an exchange refuses by name; empty where the error names none.

    Args:
        error: what ended a connection.
        names: of each symbol, by ccxt and by the exchange.
    """
    import ccxt

    if not isinstance(error, ccxt.ExchangeError):
        return []
    text = str(error)
    return [s for s, known in names.items() if any(_is_named(name, text) for name in known)]


def _is_named(name: str, text: str) -> bool:
    """Whether a market is named, not only as the beginning or the end of another one's name."""
    return re.search(rf"(?<![\w/-]){re.escape(name)}(?!:?[\w/-])", text) is not None
