"""Test known gotchas of candle feeds that have no test file of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ccxt
import pytest

from daemon.exchange.ccxt_client import make_exchange
from daemon.exchange.message_parsers import MESSAGE_PARSERS
from daemon.exchange.source import streams_per_connection
from daemon.feed.connection import _topics
from daemon.feed.symbol_allocation import assign_symbols
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from tests.replay.replay_harness import make_feed, running
from tests.sandbox.scaled import SECOND, ScaledClock, second_playback
from tests.support.waiting import until

FACTOR = 2.0


class SkewedClock:
    """A machine whose wall clock is off, beside an exchange whose clock is right."""

    def __init__(self, right: ScaledClock, ahead_ms: int) -> None:
        self._right = right
        self._ahead_ms = ahead_ms

    def wall_ms(self) -> int:
        return self._right.wall_ms() + self._ahead_ms

    def monotonic(self) -> float:
        return self._right.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._right.sleep(seconds)


@pytest.mark.parametrize("ahead_ms", [500, -500, 3_600_000, -3_600_000])
async def test_clock_skew_neither_closes_an_open_candle_nor_refuses_a_closed_one(
    ahead_ms: int,
) -> None:
    right, playback = ScaledClock(FACTOR), second_playback(1)
    async with SandboxExchange(playback, clock=right) as exchange:
        clock = SkewedClock(right, ahead_ms)
        urls = exchange.rest_url, exchange.ws_url
        harness = make_feed(urls, playback.symbols, clock, timeframe="1s")
        symbol = playback.symbols[0]
        async with running(harness):
            for _ in range(12):
                true_ms = right.wall_ms()
                candles = await harness.feed.history(symbol, SECOND.floor(true_ms) - 5_000)
                for candle in candles:
                    assert candle.ohlcv == playback.candle(symbol, candle.open_ms)
                    assert not candle.filled
                assert len(candles) >= 3
                await clock.sleep(0.23)
            await until(lambda: len(harness.closed) >= 3)
    assert harness.count("feed_refused") == 0
    offset_s = harness.metrics.registry.get_sample_value("candlecast_exchange_clock_offset_seconds")
    assert offset_s == pytest.approx(-ahead_ms / 1e3, abs=0.3)


async def test_reading_the_cache_of_ccxt_does_not_stop_its_updates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The generic path: every candle but the first, which only primes, by its successor."""
    monkeypatch.setattr(
        "daemon.exchange.ccxt_tap.MESSAGE_PARSERS",
        {k: v for k, v in MESSAGE_PARSERS.items() if k != "binance"},
    )
    clock, playback = ScaledClock(FACTOR), second_playback(2)
    behaviour = Behaviour(updates=3)
    async with SandboxExchange(playback, clock=clock, behaviour=behaviour) as exchange:
        urls = exchange.rest_url, exchange.ws_url
        harness = make_feed(urls, playback.symbols, clock, timeframe="1s")
        async with running(harness):
            await until(lambda: len(harness.closed) >= 12)
    assert {candle.final_by for candle in harness.closed} == {"successor"}
    for candle in harness.closed:
        assert candle.ohlcv == playback.candle(candle.symbol, candle.open_ms)
    first_ms = {forming_ms for _, forming_ms in harness.resumed}
    assert not first_ms & {candle.open_ms for candle in harness.closed}


def test_subscriptions_keep_to_each_exchanges_limit() -> None:
    names = ("binance", "binanceusdm", "kucoin", "kucoinfutures", "mexc", "okx", "unheard-of")
    limits = [streams_per_connection(name) for name in names]
    assert limits == [200, 200, 300, 300, 30, 100, 100]
    spot = [f"S{number}/USDT" for number in range(250)]
    swaps = [f"S{number}/USDT:USDT" for number in range(50)]
    shards = assign_symbols([], [*spot, *swaps], lambda symbol: ":" in symbol, 200)
    assert shards == [spot[:200], spot[200:], swaps]


def test_each_symbol_gets_a_call_where_one_call_watches_one_symbol() -> None:
    shard = ["A/B", "C/D"]
    several = SimpleNamespace(has={"watchOHLCVForSymbols": True})
    single = SimpleNamespace(has={"watchOHLCV": True})
    assert _topics(several, shard, "1m") == [[["A/B", "1m"], ["C/D", "1m"]]]
    assert _topics(single, shard, "1m") == [[["A/B", "1m"]], [["C/D", "1m"]]]


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
async def test_a_jump_of_the_wall_clock_breaks_no_connection(
    monkeypatch: pytest.MonkeyPatch, jump_ms: int
) -> None:
    """ccxt counts keep-alives by the wall clock."""
    jumped = {"ms": 0}
    tell_ms = ccxt.Exchange.milliseconds

    def impatient(*args: Any, **kwargs: Any) -> Any:
        exchange = make_exchange(*args, **kwargs)
        exchange.streaming = exchange.streaming | {"keepAlive": 50}
        return exchange

    monkeypatch.setattr("daemon.feed.connection.make_exchange", impatient)
    monkeypatch.setattr(ccxt.Exchange, "milliseconds", lambda: tell_ms() + jumped["ms"])
    clock, playback = ScaledClock(FACTOR), second_playback(1)
    async with SandboxExchange(playback, clock=clock) as exchange:
        harness = make_feed(
            (exchange.rest_url, exchange.ws_url), playback.symbols, clock, timeframe="1s"
        )
        async with running(harness):
            await until(lambda: harness.closed)
            jumped["ms"] = jump_ms
            before = len(harness.closed)
            await until(lambda: len(harness.closed) > before + 2)
    assert harness.count("feed_reconnects") == 0
    assert len({c.open_ms for c in harness.closed}) == len(harness.closed)
