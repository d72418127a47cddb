"""Test the feed on each exchange's own protocol over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from prometheus_client import generate_latest

from config import settings as configuration
from daemon.app import App, opened
from daemon.exchange import ccxt_tap
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from model.core.candle import Candle
from tests.integration.harness import (
    candles_without_forecast,
    counted_without_forecast,
    longest_run,
    predictions,
    write_config,
)
from tests.replay.replay_harness import FeedHarness, make_feed, nothing_left, running
from tests.sandbox.scaled import MINUTE, ScaledClock, minute_playback
from tests.support.servers import MAX_WAIT_S, mosquitto, mosquitto_sub
from tests.support.tiny_models import SHORT, promote
from tests.support.waiting import until

FACTOR = 60.0
FINAL_BY = {
    "binance": "exchange_flag",
    "okx": "exchange_flag",
    "bybit": "exchange_flag",
    "kraken": "successor",
}
ROWS_OF_KRAKEN = 720


@asynccontextmanager
async def market(
    name: str, symbols: int, history: int = 1_500
) -> AsyncIterator[tuple[SandboxExchange, FeedHarness, ScaledClock]]:
    """An exchange whose minutes pass in a second, and a feed that is not opened yet."""
    clock = ScaledClock(FACTOR)
    playback = minute_playback(symbols, clock.wall_ms(), history)
    behaviour = Behaviour(updates=2, close_delay_s=0.6)
    async with SandboxExchange(playback, name=name, clock=clock, behaviour=behaviour) as exchange:
        urls = exchange.rest_url, exchange.ws_url
        yield exchange, make_feed(urls, playback.symbols, clock, name=name, timeframe="1m"), clock


def assert_true(exchange: SandboxExchange, candles: Sequence[Candle], final_by: str) -> None:
    """Each candle once, as on the playback, passed on soon after its close and not before."""
    assert max(Counter((c.symbol, c.open_ms) for c in candles).values()) == 1
    for candle in candles:
        assert candle.ohlcv == exchange.playback.candle(candle.symbol, candle.open_ms)
        assert candle.final_by == final_by
    delays_ms = [candle.received_ms - candle.close_ms for candle in candles]
    assert min(delays_ms) >= 0
    assert median(delays_ms) < MINUTE.ms
    # A machine stalled for some seconds delays the candles of as many minutes.
    assert max(delays_ms) < 10 * MINUTE.ms


def assert_whole(harness: FeedHarness, symbols: Sequence[str]) -> None:
    """No candle is missing between a symbol's first and last."""
    for symbol in symbols:
        opens = [candle.open_ms for candle in harness.closed if candle.symbol == symbol]
        assert opens == list(range(opens[0], opens[0] + len(opens) * MINUTE.ms, MINUTE.ms))


@pytest.mark.parametrize("name", FINAL_BY)
async def test_every_candle_is_received_once_and_unchanged(name: str) -> None:
    # More symbols than Bybit takes in one request.
    async with market(name, 12) as (exchange, harness, _), running(harness):
        await until(lambda: len(harness.closed) >= 4 * 12)
        assert exchange.streams.clients == 1
    assert_true(exchange, harness.closed, FINAL_BY[name])
    assert_whole(harness, exchange.playback.symbols)
    assert {symbol for symbol, _ in harness.resumed} == set(exchange.playback.symbols)
    assert harness.count("feed_refused") == 0
    assert harness.count("feed_reconnects") == 0


@pytest.mark.parametrize("name", FINAL_BY)
async def test_history_equals_the_playback_for_any_page_length(name: str) -> None:
    async with market(name, 2, history=2_000) as (exchange, harness, clock):
        await harness.feed.open()
        try:
            for back in (1, 300, 1_700):
                since_ms = MINUTE.floor(clock.wall_ms()) - back * MINUTE.ms
                asked_ms = clock.wall_ms()
                # A candle that has just closed is not final by REST yet.
                while not (candles := await harness.feed.history("S01/USDT", since_ms)):
                    asked_ms = clock.wall_ms()
                    assert asked_ms < since_ms + 60 * MINUTE.ms
                if name == "kraken":
                    earliest_ms = MINUTE.floor(clock.wall_ms()) - ROWS_OF_KRAKEN * MINUTE.ms
                    since_ms = max(since_ms, earliest_ms, candles[0].open_ms)
                    assert since_ms <= earliest_ms + 5 * MINUTE.ms or back < ROWS_OF_KRAKEN
                end_ms = candles[-1].close_ms
                opens, ohlcv = exchange.playback.history("S01/USDT", since_ms, end_ms)
                assert [candle.open_ms for candle in candles] == opens.tolist()
                assert [list(candle.ohlcv) for candle in candles] == ohlcv.tolist()
                assert end_ms >= MINUTE.floor(asked_ms) - 2 * MINUTE.ms
        finally:
            await harness.feed.close()


@pytest.mark.parametrize("name", FINAL_BY)
async def test_after_a_broken_connection_no_old_candle_counts_as_new(name: str) -> None:
    async with market(name, 3) as (exchange, harness, clock), running(harness):
        await until(lambda: len(harness.closed) >= 6)
        exchange.streams.abort_all()
        await until(lambda: exchange.streams.clients == 0)
        # Several candles close without a connection; a snapshot has them all.
        await clock.sleep(3 * MINUTE.ms / 1_000)
        before = len(harness.closed)
        await until(lambda: len(harness.closed) >= before + 6)
    assert_true(exchange, harness.closed, FINAL_BY[name])
    assert harness.count("feed_reconnects") == 1
    assert harness.count("feed_refused") == 0


@pytest.mark.parametrize("name", ["okx", "bybit", "kraken"])
async def test_messages_unknown_to_the_tap_go_through_ccxts_own_parser(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kraken's class watches one symbol a call, the others many; its first message is a snapshot.
    monkeypatch.setattr(ccxt_tap, "MESSAGE_PARSERS", {})
    async with market(name, 5) as (exchange, harness, _), running(harness):
        await until(lambda: len(harness.closed) >= 3 * 5)
        exchange.streams.abort_all()
        before = len(harness.closed)
        await until(lambda: len(harness.closed) >= before + 2 * 5)
    assert_true(exchange, harness.closed, "successor")
    assert {candle.symbol for candle in harness.closed} == set(exchange.playback.symbols)
    assert harness.count("feed_refused") == 0


def daemon_config(folder: Path, exchange: SandboxExchange, mqtt_port: int) -> Path:
    return write_config(
        folder,
        {
            "exchange": {
                "name": exchange.name,
                "endpoint": {"rest": exchange.rest_url, "ws": exchange.ws_url},
            },
            "trading": {"symbols": list(exchange.playback.symbols), "timeframe": "1m"},
            "model": {"lookback_periods": 8},
            "indicators": asdict(SHORT),
            "mqtt": {"port": mqtt_port},
            "http": {"port": 0},
        },
    )


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
@pytest.mark.parametrize("name", FINAL_BY)
async def test_the_daemon_forecasts_every_candle_of_every_exchange(
    name: str, tmp_path: Path
) -> None:
    with mosquitto(tmp_path) as broker, mosquitto_sub(broker.port, "candlecast/#") as subscriber:
        forecasts: list[dict[str, Any]] = []

        def enough() -> bool:
            forecasts.extend(predictions(subscriber.received()))
            numbers = defaultdict(set)
            for forecast in forecasts:
                numbers[forecast["symbol"]].add(forecast["seq"])
            return len(numbers) == 3 and min(map(longest_run, numbers.values())) >= 4

        async with market(name, 3) as (exchange, _, clock):
            playback = exchange.playback
            settings = configuration.load(daemon_config(tmp_path, exchange, broker.port))
            past = {
                s: playback.history(s, playback.origin_ms, clock.wall_ms())[1]
                for s in playback.symbols
            }
            promote(settings.state_dir / "registry", past)
            stop = asyncio.Event()
            async with (
                nothing_left(),
                opened(settings) as (bundle, history),
                asyncio.TaskGroup() as group,
            ):
                app = App(settings, bundle, history, clock)
                group.create_task(app.run(stop))
                await until(enough, MAX_WAIT_S)
                # A stalled machine misses forecasts; each of them is counted.
                metrics = generate_latest(app.metrics.registry).decode()
                assert candles_without_forecast(forecasts) <= counted_without_forecast(metrics)
                stop.set()
    for symbol in playback.symbols:
        mine = {p["seq"]: p for p in forecasts if p["symbol"] == symbol}
        for forecast in mine.values():
            opened_ms = forecast["candle_open_ms"]
            assert forecast["last_close"] == playback.candle(symbol, opened_ms).close
            assert forecast["published_ms"] >= forecast["candle_close_ms"]
            assert forecast["window"]["filled"] == 0
        assert FINAL_BY[name] in {p["window"]["final_by"] for p in mine.values()}
        assert {p["window"]["final_by"] for p in mine.values()} <= {FINAL_BY[name], "rest"}
