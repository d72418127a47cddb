"""Test refused, slow and forbidden subscriptions: other symbols are unaffected."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import ccxt
import ccxt.pro
import pytest

from daemon.exchange import ccxt_tap
from daemon.feed import feed as feed_module
from daemon.feed.connection_supervisor import handshake_ban, refused_symbols
from daemon.feed.liveness import LivenessMonitor
from daemon.runtime.backoff import Backoff
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from daemon.sandbox.websocket_server import StreamServer
from tests.replay.replay_harness import FeedHarness, make_feed, running
from tests.sandbox.scaled import MINUTE, SECOND, ScaledClock, minute_playback, second_playback
from tests.support.waiting import until

FACTOR = 60.0


@asynccontextmanager
async def market(
    name: str, symbols: int, factor: float = FACTOR
) -> AsyncIterator[tuple[SandboxExchange, FeedHarness, ScaledClock]]:
    """An exchange whose minutes pass in a second or so, and a feed that is not opened yet."""
    clock = ScaledClock(factor)
    playback = minute_playback(symbols, clock.wall_ms())
    behaviour = Behaviour(updates=2, close_delay_s=0.6)
    async with SandboxExchange(playback, name=name, clock=clock, behaviour=behaviour) as exchange:
        urls = exchange.rest_url, exchange.ws_url
        yield exchange, make_feed(urls, playback.symbols, clock, name=name), clock


def lines(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if part in r.getMessage()]


@pytest.mark.parametrize("name", ["okx", "bybit", "kraken"])
async def test_a_delisted_symbol_is_reported_alone_and_the_others_continue(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "candlecast")
    # Bybit takes ten symbols in a request and refuses all of them for one.
    async with market(name, 12) as (exchange, harness, clock), running(harness):
        gone, *others = exchange.playback.symbols
        await until(lambda: {c.symbol for c in harness.closed} == {gone, *others})
        exchange.faults.delisted.add(gone)
        exchange.streams.abort_all()
        await until(lambda: lines(caplog, f"refuses to stream {gone};"))
        before = len(harness.closed)
        await until(lambda: len(harness.closed) >= before + 3 * len(others))
        assert {candle.symbol for candle in harness.closed[before:]} == set(others)
        # Its history looks like that of a market without trades.
        assert await harness.feed.history(gone, MINUTE.floor(clock.wall_ms()) - 5 * MINUTE.ms) == []
        exchange.faults.delisted.clear()
        await until(lambda: lines(caplog, f"{name} streams {gone} again"))
        assert await harness.feed.history(gone, MINUTE.floor(clock.wall_ms()) - 5 * MINUTE.ms)
    assert len(lines(caplog, "refuses to stream")) == 1


async def test_a_delisted_symbol_does_not_keep_a_new_listing_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with market("okx", 3) as (exchange, _, clock):
        gone, stays, listed = exchange.playback.symbols
        exchange.faults.delisted.add(listed)
        urls = exchange.rest_url, exchange.ws_url
        async with running(make_feed(urls, [gone, stays], clock, name="okx")) as harness:
            await until(lambda: {c.symbol for c in harness.closed} == {gone, stays})
            exchange.faults.delisted.clear()
            exchange.faults.delisted.add(gone)
            await harness.feed.check_symbols([listed])
            harness.feed.watch_symbols([gone, stays, listed])
            exchange.streams.abort_all()
            await until(lambda: lines(caplog, f"refuses to stream {gone};"))
            before = len(harness.closed)
            await until(lambda: len(harness.closed) >= before + 4)
        assert {candle.symbol for candle in harness.closed[before:]} == {stays, listed}


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("channel:candle1m,instId:A-B doesn't exist.", ["A/B"]),
        ("Invalid symbol :[kline.1.A-B]", ["A/B"]),
        ("A/B: Currency pair not supported", ["A/B"]),
        ("instId:A-B-SWAP doesn't exist", ["A/B:B"]),
        ("instId:XA-B-SWAP or A-BX or A-B-C", []),
        ("Too many subscriptions", []),
    ],
)
def test_a_refusal_is_matched_only_by_a_whole_symbol_name(text: str, refused: list[str]) -> None:
    names = {"A/B": ("A/B", "A-B"), "A/B:B": ("A/B:B", "A-B-SWAP"), "C/D": ("C/D", "C-D")}
    assert refused_symbols(ccxt.BadRequest(text), names) == refused
    assert refused_symbols(ccxt.NetworkError(text), names) == []


async def test_a_refused_symbol_is_retried_at_growing_intervals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    at_s: list[float] = []
    answer = StreamServer.refuse_path

    def noting(server: StreamServer, *request: Any) -> Any:
        at_s.append(server._clock.monotonic())  # noqa: SLF001 - the exchange's
        return answer(server, *request)

    monkeypatch.setattr(StreamServer, "refuse_path", noting)
    # Without jitter, which would halve a pause at most.
    steady = partial(Backoff, draw=lambda: 0.0)
    monkeypatch.setattr("daemon.feed.connection_supervisor.Backoff", steady)
    async with market("okx", 1, factor=20.0) as (exchange, harness, _), running(harness):
        # Listed when the feed was opened, gone when it subscribes.
        exchange.faults.delisted.update(exchange.playback.symbols)
        await until(lambda: len(at_s) == 8)
        for number, (before_s, after_s) in enumerate(pairwise(at_s)):
            # After 0.5, 1, 2, 4 … 32 seconds, and the time that each refusal takes.
            pause_s = 0.5 * 2**number
            assert pause_s <= after_s - before_s <= pause_s + 10.0
        exchange.faults.delisted.clear()
        await until(lambda: harness.closed)
    assert len(lines(caplog, "lost the candle stream of 1 symbols")) == 1


@pytest.mark.parametrize("status", [418, 429])
async def test_a_ban_of_new_connections_is_respected_to_the_second(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock, playback = ScaledClock(2.0), second_playback(2)
    async with SandboxExchange(playback, clock=clock) as exchange:
        harness = make_feed(
            (exchange.rest_url, exchange.ws_url), playback.symbols, clock, timeframe="1s"
        )
        async with running(harness):
            await until(lambda: harness.closed)
            exchange.ban(status, 4, handshakes=True)
            until_ms = exchange.faults.ban_until_ms
            before, asked = exchange.streams.handshakes, sum(exchange.rest.requests.values())
            exchange.streams.abort_all()
            while clock.wall_ms() < until_ms:
                assert exchange.streams.handshakes <= before + 1
                assert sum(exchange.rest.requests.values()) == asked
                await asyncio.sleep(0.01)
            await until(lambda: exchange.streams.handshakes == before + 2)
            closed = len(harness.closed)
            await until(lambda: len(harness.closed) > closed)
    assert harness.count("feed_bans") == 1
    assert len(lines(caplog, "it asks to slow down")) == 1


def test_other_refusals_of_a_connection_are_no_bans() -> None:
    assert handshake_ban(ccxt.NetworkError("closed")) is None
    assert handshake_ban(OSError()) is None


async def test_a_lost_stream_and_its_return_are_each_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "candlecast.feed")
    clock, playback = ScaledClock(4.0), second_playback(2)
    async with SandboxExchange(playback, clock=clock) as exchange:
        harness = make_feed(
            (exchange.rest_url, exchange.ws_url), playback.symbols, clock, timeframe="1s"
        )
        async with running(harness):
            for _ in range(2):
                before = len(harness.resumed)
                await until(lambda before=before: len(harness.resumed) > before)  # type: ignore[misc]
                exchange.streams.abort_all()
            await until(lambda: lines(caplog, "is back"))
            exchange.streams.abort_all()
            await until(lambda: len(lines(caplog, "is back")) == 2)
    logged = [r.getMessage() for r in caplog.records if r.name == "candlecast.feed"]
    assert [line.partition(" of ")[0] for line in logged] == [
        "lost the candle stream",
        "the candle stream",
    ] * 2


async def test_a_failed_renewal_loses_no_candle(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed_module, "_RENEW_AFTER_S", 3.0)
    clock, playback = ScaledClock(2.0), second_playback(2)
    async with SandboxExchange(playback, clock=clock) as exchange:
        harness = make_feed(
            (exchange.rest_url, exchange.ws_url), playback.symbols, clock, timeframe="1s"
        )
        async with running(harness):
            await until(lambda: harness.closed)
            exchange.ban(429, 6, handshakes=True)
            await until(lambda: lines(caplog, "the old one stays in use"))
            before = len(harness.closed)
            await until(lambda: len(harness.closed) > before + 6)
            assert exchange.streams.clients == 1
    assert harness.count("feed_reconnects") == 0
    for symbol in playback.symbols:
        opens = [c.open_ms for c in harness.closed if c.symbol == symbol]
        assert opens == list(range(opens[0], opens[0] + len(opens) * SECOND.ms, SECOND.ms))


async def test_pauses_between_subscriptions_do_not_count_as_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kraken's class watches one symbol a call; with a quarter of a minute between two."""
    monkeypatch.setattr(ccxt_tap, "MESSAGE_PARSERS", {})
    monkeypatch.setattr(feed_module, "_RENEW_AFTER_S", 240.0)
    described = ccxt.pro.kraken.describe

    def slower(exchange: Any) -> Any:
        return described(exchange) | {"rateLimit": 15_000}

    monkeypatch.setattr(ccxt.pro.kraken, "describe", slower)
    async with market("kraken", 5) as (exchange, harness, _), running(harness):
        await until(lambda: {c.symbol for c in harness.closed} == set(exchange.playback.symbols))
        await until(lambda: harness.count("feed_renewals"))
        await until(lambda: exchange.streams.clients == 1)
        before = len(harness.closed)
        await until(lambda: len(harness.closed) > before + 10)
    assert harness.count("feed_silent_streams") == 0
    assert harness.count("feed_reconnects") == 0
    assert max(Counter((c.symbol, c.open_ms) for c in harness.closed).values()) <= 2
    for symbol in exchange.playback.symbols:
        opens = sorted({c.open_ms for c in harness.closed if c.symbol == symbol})
        assert opens == list(range(opens[0], opens[0] + len(opens) * MINUTE.ms, MINUTE.ms))


def test_symbols_without_a_subscription_yet_are_not_suspected() -> None:
    monitor = LivenessMonitor(["A", "B", "C"], 10.0, 100.0, apart_s=20.0)
    assert monitor.symbols_to_probe(105.0) == ["A"]
    assert monitor.symbols_to_probe(124.9) == ["A"]
    assert monitor.symbols_to_probe(145.0) == ["C", "B"]


async def test_without_the_exchanges_time_candles_are_not_closed_by_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    described = ccxt.pro.okx.describe

    def without_time(exchange: Any) -> Any:
        return exchange.deep_extend(described(exchange), {"has": {"fetchTime": False}})

    monkeypatch.setattr(ccxt.pro.okx, "describe", without_time)
    async with market("okx", 1) as (exchange, harness, clock), running(harness):
        (symbol,) = exchange.playback.symbols
        await until(lambda: len(harness.closed) >= 3)
        await clock.sleep(30)
        candles = await harness.feed.history(symbol, MINUTE.floor(clock.wall_ms()) - 5 * MINUTE.ms)
        sample = harness.metrics.registry.get_sample_value
        assert sample("candlecast_exchange_clock_trusted") == 0
    assert "/api/v5/public/time" not in exchange.rest.requests
    # Of what the answer held, only what had a successor.
    assert [c.open_ms for c in candles] == sorted(c.open_ms for c in candles)
    for candle in [*candles, *harness.closed]:
        assert candle.ohlcv == exchange.playback.candle(symbol, candle.open_ms)
    logged = lines(caplog, "has no request for its time")
    assert len(logged) == 1


async def test_no_connection_is_opened_without_symbols(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed_module, "streams_per_connection", lambda _name: 2)
    clock, playback = ScaledClock(4.0), second_playback(3)
    async with SandboxExchange(playback, clock=clock) as exchange:
        harness = make_feed(
            (exchange.rest_url, exchange.ws_url), playback.symbols, clock, timeframe="1s"
        )
        async with running(harness):
            await until(lambda: exchange.streams.clients == 2)
            harness.feed.watch_symbols(playback.symbols[:2])
            await until(lambda: exchange.streams.clients == 1)
            await clock.sleep(8)
            assert exchange.streams.handshakes == 2
            harness.feed.watch_symbols(playback.symbols)
            await until(lambda: playback.symbols[2] in {c.symbol for c in harness.closed[-3:]})
    assert harness.count("feed_reconnects") == 0
    assert not lines(caplog, "lost")
