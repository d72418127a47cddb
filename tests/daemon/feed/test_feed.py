"""The feed against the sandbox exchange: reconnection, pages, refusals and clean ends."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from daemon.candles.window import Window
from daemon.exchange import rest as rest_module
from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.rest import RestClient
from daemon.exchange.source import MarketSource
from daemon.feed import feed as feed_module
from daemon.feed.backfill import Backfill
from daemon.feed.connection import Connection
from daemon.runtime.clock import SystemClock
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from model.core.candle import Candle, Timeframe
from model.core.errors import ExchangeError
from tests.replay.replay_harness import FeedHarness, make_feed, nothing_left, running
from tests.sandbox.scaled import SECOND, ScaledClock, second_playback
from tests.support.manual_clock import ManualClock
from tests.support.servers import free_port
from tests.support.waiting import until

FACTOR = 2.0
CAPACITY = 30
MINUTE = Timeframe.parse("1m")


@pytest.fixture
def clock() -> ScaledClock:
    return ScaledClock(FACTOR)


@pytest.fixture
async def exchange(clock: ScaledClock) -> AsyncIterator[SandboxExchange]:
    playback = second_playback(6, history=3_000)
    async with SandboxExchange(playback, clock=clock, behaviour=Behaviour(updates=2)) as opened:
        yield opened


def feed_of(
    exchange: SandboxExchange, clock: ScaledClock, *symbols: str, name: str = "1s"
) -> FeedHarness:
    urls = exchange.rest_url, exchange.ws_url
    return make_feed(urls, symbols or exchange.playback.symbols, clock, timeframe=name)


def assert_recorded(exchange: SandboxExchange, candles: list[Candle]) -> None:
    for candle in candles:
        assert candle.ohlcv == exchange.playback.candle(candle.symbol, candle.open_ms)
        assert candle.close_ms == candle.open_ms + SECOND.ms
    assert max(Counter((c.symbol, c.open_ms) for c in candles).values()) == 1


async def test_closed_candles_of_all_symbols_once_each(
    exchange: SandboxExchange, clock: ScaledClock
) -> None:
    harness = feed_of(exchange, clock)
    async with running(harness):
        await until(lambda: len(harness.closed) >= 4 * 6)
    assert_recorded(exchange, harness.closed)
    for symbol in exchange.playback.symbols:
        opens = [candle.open_ms for candle in harness.closed if candle.symbol == symbol]
        assert opens == list(range(opens[0], opens[0] + len(opens) * SECOND.ms, SECOND.ms))
    assert {candle.final_by for candle in harness.closed} == {"exchange_flag"}
    assert sorted({symbol for symbol, _ in harness.resumed}) == sorted(exchange.playback.symbols)
    assert harness.count("feed_refused") == 0


async def test_after_broken_connections_the_windows_are_whole_again(
    exchange: SandboxExchange, clock: ScaledClock
) -> None:
    harness = feed_of(exchange, clock)
    windows = {s: Window(s, SECOND, CAPACITY) for s in exchange.playback.symbols}

    def repair(symbol: str, candles: Sequence[Candle]) -> None:
        windows[symbol].merge_history(candles)

    backfill = Backfill(
        harness.feed,
        windows.values(),
        harness.feed.grid.timeframe,
        clock,
        harness.metrics,
        repair,
        CAPACITY,
    )

    def caught_up() -> bool:
        """Take in what closed, as the path does; True when every window is whole and recent."""
        while harness.closed:
            candle = harness.closed.pop(0)
            if windows[candle.symbol].add_closed(candle).value == "gap":
                backfill.request(candle.symbol)
        while harness.resumed:
            backfill.request(harness.resumed.pop(0)[0])
        oldest = min((w.next_open_ms or 0) if w.is_complete else 0 for w in windows.values())
        return oldest >= SECOND.floor(clock.wall_ms()) - SECOND.ms

    async with running(harness), asyncio.TaskGroup() as group:
        task = group.create_task(backfill.run())
        await until(caught_up)
        for breaks in (1, 2):
            exchange.streams.abort_all()
            await until(lambda: exchange.streams.clients == 0)
            # More than one candle closes during the disconnection.
            await clock.sleep(2.5)
            await until(caught_up)
            assert harness.count("feed_reconnects") == breaks
        task.cancel()
    for symbol, window in windows.items():
        assert window.next_open_ms is not None
        start = window.next_open_ms - CAPACITY * SECOND.ms
        _, expected = exchange.playback.history(symbol, start, window.next_open_ms)
        assert window.ohlcv().tolist() == expected.tolist()
        assert window.count_untraded(CAPACITY) == 0


async def test_a_closing_handshake_is_a_reconnect_too(
    exchange: SandboxExchange, clock: ScaledClock, caplog: pytest.LogCaptureFixture
) -> None:
    harness = feed_of(exchange, clock, "S00/USDT")
    async with running(harness):
        await until(lambda: harness.closed)
        await exchange.streams.close_all(1001)
        before = len(harness.closed)
        await until(lambda: len(harness.closed) > before + 1)
    assert harness.count("feed_reconnects") == 1
    lines = [
        r.getMessage()
        for r in caplog.records
        if r.name == "candlecast.feed" and r.levelno >= logging.WARNING
    ]
    assert len(lines) == 1
    assert lines[0].startswith("lost the candle stream of 1 symbols: ")


@pytest.mark.parametrize("page", [1_500, 1_000])
@pytest.mark.parametrize("back", [1, 999, 1_000, 1_001, 2_400])
async def test_history_in_pages_equals_the_playback(
    exchange: SandboxExchange,
    clock: ScaledClock,
    monkeypatch: pytest.MonkeyPatch,
    back: int,
    page: int,
) -> None:
    # The exchange gives at most 1,000 candles at once, whatever it is asked for.
    monkeypatch.setattr(rest_module, "_PAGE_ROWS", page)
    harness = feed_of(exchange, clock, "S03/USDT")
    await harness.feed.open()
    try:
        since_ms = SECOND.floor(clock.wall_ms()) - back * SECOND.ms
        earliest_end_ms = clock.wall_ms() - 1_250
        candles = await harness.feed.history("S03/USDT", since_ms)
    finally:
        await harness.feed.close()
    opens, ohlcv = exchange.playback.history(
        "S03/USDT", since_ms, since_ms + len(candles) * SECOND.ms
    )
    assert [candle.open_ms for candle in candles] == opens.tolist()
    assert [list(candle.ohlcv) for candle in candles] == ohlcv.tolist()
    assert {candle.final_by for candle in candles} <= {"rest"}
    assert since_ms + len(candles) * SECOND.ms > earliest_end_ms


async def test_history_of_a_symbol_listed_later_begins_with_its_listing() -> None:
    clock = SystemClock()
    playback = second_playback(1, history=40)
    async with SandboxExchange(playback, clock=clock) as exchange:
        harness = make_feed((exchange.rest_url, None), ["S00/USDT"], clock, timeframe="1s")
        await harness.feed.open()
        candles = await harness.feed.history("S00/USDT", playback.origin_ms - 500 * SECOND.ms)
        await harness.feed.close()
    assert candles[0].open_ms == playback.origin_ms
    assert len(candles) >= 39


async def test_an_unreachable_exchange_is_one_clear_line(clock: ScaledClock) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    harness = make_feed((nowhere, "ws://127.0.0.1:9"), ["BTC/USDT"], clock)
    async with nothing_left():
        with pytest.raises(ExchangeError, match="loading its markets: it cannot be reached"):
            await harness.feed.open()
        await harness.feed.close()


@pytest.mark.parametrize(
    ("symbol", "timeframe", "line"),
    [
        ("S99/USDT", "1s", r"binance has no symbol S99/USDT; did you mean S0"),
        ("S00/USDT", "7m", r"binance has no timeframe 7m; allowed: 1s, 1m, 3m"),
        ("S00/USDT:USDT", "1s", r"binance has no symbol S00/USDT:USDT; see the exchange's own"),
    ],
)
async def test_what_the_exchange_lacks_is_one_clear_line(
    exchange: SandboxExchange, clock: ScaledClock, symbol: str, timeframe: str, line: str
) -> None:
    harness = feed_of(exchange, clock, symbol, name=timeframe)
    try:
        with pytest.raises(ExchangeError, match=line) as caught:
            await harness.feed.open()
    finally:
        await harness.feed.close()
    assert "\n" not in str(caught.value)


async def test_an_exchange_without_stream_is_reconnected(
    exchange: SandboxExchange, clock: ScaledClock, caplog: pytest.LogCaptureFixture
) -> None:
    away = f"ws://127.0.0.1:{free_port()}"
    harness = make_feed((exchange.rest_url, away), ["S00/USDT"], clock, timeframe="1s")
    async with running(harness):
        await until(lambda: harness.count("feed_reconnects") >= 3)
    lines = [
        r.getMessage()
        for r in caplog.records
        if r.name == "candlecast.feed" and r.levelno >= logging.WARNING
    ]
    assert len(lines) == 1
    assert "lost the candle stream of 1 symbols" in lines[0]


async def test_a_refused_subscription_is_reported(
    clock: ScaledClock, caplog: pytest.LogCaptureFixture
) -> None:
    behaviour = Behaviour(max_streams=2)
    async with SandboxExchange(second_playback(3), clock=clock, behaviour=behaviour) as exchange:
        harness = feed_of(exchange, clock)
        async with running(harness):
            await until(lambda: harness.count("feed_reconnects") >= 2)
    lines = [
        r.getMessage()
        for r in caplog.records
        if r.name == "candlecast.feed" and r.levelno >= logging.WARNING
    ]
    assert len(lines) == 1
    assert "Too many subscriptions" in lines[0]


async def test_several_connections_close_cleanly(
    exchange: SandboxExchange, clock: ScaledClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "streams_per_connection", lambda name: 2 if name else 0)
    harness = feed_of(exchange, clock)
    async with running(harness):
        await until(lambda: {c.symbol for c in harness.closed} == set(exchange.playback.symbols))
        assert exchange.streams.clients == 3
        assert harness.count("feed_reconnects") == 0
    await until(lambda: exchange.streams.clients == 0)
    assert_recorded(exchange, harness.closed)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1, 0.3])
async def test_a_start_cancelled_at_any_point_leaves_nothing_open(
    exchange: SandboxExchange, clock: ScaledClock, after_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    harness = feed_of(exchange, clock)
    async with running(harness):
        await asyncio.sleep(after_s)
    await until(lambda: exchange.streams.clients == 0)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_an_error_of_a_receiver_ends_the_feed(
    exchange: SandboxExchange, clock: ScaledClock
) -> None:
    def receive(candle: Candle) -> None:
        raise KeyError(candle.symbol)

    urls = exchange.rest_url, exchange.ws_url
    harness = make_feed(urls, ["S00/USDT"], clock, timeframe="1s", on_closed=receive)
    async with nothing_left():
        await harness.feed.open()
        with pytest.raises(ExceptionGroup) as caught:
            await harness.feed.run()
        await harness.feed.close()
    assert caught.group_contains(KeyError, match="S00/USDT")
    assert harness.count("feed_refused") == 0


async def test_a_stream_whose_candles_open_at_another_time_has_not_stalled() -> None:
    open_ms = 1_700_000_160_000
    clock = ManualClock(open_ms)
    harness = make_feed((None, None), ["A/B"], clock)
    source = MarketSource("binance", None, None, ("A/B",), MINUTE)
    rest = RestClient(
        source, ExchangeClock(clock), harness.metrics, harness.feed.on_unusable_message
    )
    link = Connection(source, ["A/B"], rest, clock, harness.feed, 45.0)
    for update in range(6):
        await clock.advance(30)
        later_ms = open_ms + update // 2 * MINUTE.ms + 20_000
        link.on_raw("A/B", later_ms, ("1", "2", "0.5", "1.5", "3"), closed=False)
    assert harness.count("feed_off_grid") == 6
    assert link._liveness.symbols_to_probe(clock.monotonic()) == []  # noqa: SLF001
    # When it becomes known that all of the exchange's candles begin so, they are taken.
    rest.grid.learn_from([[open_ms + 20_000 + at * MINUTE.ms] for at in range(3)])
    link.on_raw("A/B", open_ms + 20_000, ("1", "2", "0.5", "1.5", "3"), closed=True)
    assert [candle.open_ms for candle in harness.closed] == [open_ms + 20_000]


async def test_impossible_candles_are_counted_and_each_kind_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    open_ms = 1_700_000_160_000
    clock = ManualClock(open_ms + 60_000)
    harness = make_feed((None, None), ["A/B"], clock)
    source = MarketSource("binance", None, None, ("A/B",), MINUTE)
    rest = RestClient(
        source, ExchangeClock(clock), harness.metrics, harness.feed.on_unusable_message
    )
    link = Connection(source, ["A/B"], rest, clock, harness.feed, 45.0)
    good = ("1", "2", "0.5", "1.5", "3")
    for values in (("1", "0.5", "2", "1", "1"), ("nan",) * 5, ()):
        link.on_raw("A/B", open_ms, values, closed=True)
    link.on_raw("A/B", open_ms + 1, good, closed=True)
    link.on_unusable_message(KeyError("x"))
    link.on_unusable_message(KeyError("y"))
    link.on_raw("A/B", open_ms, good, closed=True)
    assert [candle.open_ms for candle in harness.closed] == [open_ms]
    assert harness.count("feed_refused") == 6
    assert harness.count("feed_off_grid") == 1
    assert len(caplog.records) == 3
    assert "off the 1m grid, which has a boundary at Tue 2023-11-14 22:16:00 UTC" in caplog.text
