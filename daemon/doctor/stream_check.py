"""`candlecast doctor` listens: connections as the daemon makes them, until each symbol is heard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from daemon.doctor.findings import Finding, Listened, judge_stream
from daemon.feed.connection import Connection
from daemon.feed.liveness import expected_interval_s
from daemon.feed.symbol_allocation import assign_symbols, market_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.exchange.exchange_clock import ExchangeClock
    from daemon.exchange.rest import RestClient
    from daemon.exchange.source import MarketSource
    from model.core.candle import Candle

_LEAST_S: Final = 20.0
_INTERVALS: Final = 1.5
"""How many expected intervals are waited for a candle."""

_MOST: Final = 10
"""Symbols of a kind of market that are listened to: each has to be subscribed to first."""


class _Ear:
    """Keeps what a connection tells of."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.heard: set[str] = set()
        self.complete = asyncio.Event()
        self.trouble: Exception | None = None
        self._expected = set(symbols)

    def on_message(self) -> None:
        """What it is about comes below."""

    def on_candle_closed(self, candle: Candle) -> None:
        """Nothing is forecast here."""

    def on_candle_update(self, candle: Candle) -> None:
        """The same."""

    def on_first_update(self, symbol: str, forming_ms: int) -> None:
        del forming_ms
        self.heard.add(symbol)
        if self.heard >= self._expected:
            self.complete.set()

    def on_garbage(self, error: Exception) -> None:
        self.trouble = error

    def on_bug(self, error: Exception) -> None:
        self.trouble = error


async def examine_streams(
    source: MarketSource, rest: RestClient, time: ExchangeClock
) -> list[Finding]:
    """Listen to some symbols of each kind of market; one finding a kind.

    Args:
        source: exchange, symbols and timeframe.
        rest: opened; asked whether a silent symbol is traded.
        time: the exchange's clock.
    """
    kinds = assign_symbols(
        [],
        source.symbols,
        lambda symbol: market_kind(rest.exchange.market(symbol)),
        len(source.symbols),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_listen(source, symbols[:_MOST], rest, time)) for symbols in kinds
        ]
    return [task.result() for task in tasks]


async def _listen(
    source: MarketSource, symbols: Sequence[str], rest: RestClient, time: ExchangeClock
) -> Finding:
    interval_s = expected_interval_s(source.timeframe.ms)
    ear = _Ear(symbols)
    link = Connection(source, symbols, rest, time, ear, interval_s)
    within_s = max(_LEAST_S, _INTERVALS * interval_s) + link.subscribing_s
    async with asyncio.TaskGroup() as group:
        running = group.create_task(link.run())
        waiting = [group.create_task(event.wait()) for event in (ear.complete, link.stalled)]
        await asyncio.wait(
            (running, *waiting), timeout=within_s, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (running, *waiting):
            task.cancel()
    deaf_to = set(link.stalled_symbols) - ear.heard
    return judge_stream(
        source.name, Listened(symbols, ear.heard, deaf_to, within_s, link.error, ear.trouble)
    )
