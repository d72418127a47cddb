"""Check that candles are received by websocket, with the daemon's own connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from daemon.doctor.findings import Finding, StreamResult, judge_stream
from daemon.feed.connection import Connection
from daemon.feed.liveness import expected_interval_s
from daemon.feed.symbol_allocation import assign_symbols, market_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.exchange.exchange_clock import ExchangeClock
    from daemon.exchange.rest import RestClient
    from daemon.exchange.source import MarketSource
    from model.core.candle import Candle

_MIN_WAIT_S: Final = 20.0
_WAIT_INTERVALS: Final = 1.5
"""How long to wait for a candle, in expected intervals between updates."""

_MAX_SYMBOLS: Final = 10
"""Symbols checked per kind of market; each subscription takes time."""


class _StreamListener:
    """Records which symbols a connection receives candles of.

    Attributes:
        received: symbols of which a candle was received.
        complete: set when every symbol was received.
        invalid: the last message that could not be parsed; None without one.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.received: set[str] = set()
        self.complete = asyncio.Event()
        self.invalid: Exception | None = None
        self._expected = set(symbols)

    def on_message(self) -> None:
        """Ignored; candles are reported below."""

    def on_candle_closed(self, candle: Candle) -> None:
        """Ignored."""

    def on_candle_update(self, candle: Candle) -> None:
        """Ignored."""

    def on_first_update(self, symbol: str, forming_ms: int) -> None:
        del forming_ms
        self.received.add(symbol)
        if self.received >= self._expected:
            self.complete.set()

    def on_unusable_message(self, error: Exception) -> None:
        self.invalid = error

    def on_receiver_error(self, error: Exception) -> None:
        self.invalid = error


async def check_streams(
    source: MarketSource, rest: RestClient, time: ExchangeClock
) -> list[Finding]:
    """Subscribe to some symbols of each kind of market.

    Args:
        source: exchange, symbols and timeframe.
        rest: opened client, which shows whether a silent symbol is traded.
        time: the exchange's clock.

    Returns:
        One finding per kind of market.
    """
    kinds = assign_symbols(
        [],
        source.symbols,
        lambda symbol: market_kind(rest.exchange.market(symbol)),
        len(source.symbols),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_check_kind(source, symbols[:_MAX_SYMBOLS], rest, time))
            for symbols in kinds
        ]
    return [task.result() for task in tasks]


async def _check_kind(
    source: MarketSource, symbols: Sequence[str], rest: RestClient, time: ExchangeClock
) -> Finding:
    interval_s = expected_interval_s(source.timeframe.ms)
    listener = _StreamListener(symbols)
    connection = Connection(source, symbols, rest, time, listener, interval_s)
    within_s = max(_MIN_WAIT_S, _WAIT_INTERVALS * interval_s) + connection.subscribing_s
    async with asyncio.TaskGroup() as group:
        running = group.create_task(connection.run())
        events = listener.complete, connection.stalled
        waiting = [group.create_task(event.wait()) for event in events]
        await asyncio.wait(
            (running, *waiting), timeout=within_s, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (running, *waiting):
            task.cancel()
    missing = set(connection.stalled_symbols) - listener.received
    result = StreamResult(
        symbols, listener.received, missing, within_s, connection.error, listener.invalid
    )
    return judge_stream(source.name, result)
