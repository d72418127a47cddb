"""Test silent exchanges, bans, missing candles and lost connections: windows stay exact."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import ccxt.async_support
import pytest
from aiohttp import ClientSession

from daemon.candles.window import CandleOutcome, Window
from daemon.exchange.rate_limits import Banned
from daemon.feed import feed as feed_module
from daemon.feed.backfill import Backfill
from daemon.sandbox.exchange import Behaviour, SandboxExchange
from model.core.candle import Candle
from tests.faults.fault_harness import port_of
from tests.faults.proxy import FaultProxy
from tests.replay.replay_harness import FeedHarness, make_feed, nothing_left, running
from tests.sandbox.scaled import SECOND, ScaledClock, second_playback
from tests.support.servers import HOST
from tests.support.waiting import until

CAPACITY = 20
FACTOR = 2.0


class Site:
    """A feed and windows against a sandbox, with everything that repairs them."""

    def __init__(self, exchange: SandboxExchange, clock: ScaledClock) -> None:
        self.exchange = exchange
        self.clock = clock
        self.candles: list[Candle] = []
        urls = exchange.rest_url, exchange.ws_url
        self.harness: FeedHarness = make_feed(
            urls, exchange.playback.symbols, clock, timeframe="1s", on_closed=self._closed
        )
        self.windows = {s: Window(s, SECOND, CAPACITY) for s in exchange.playback.symbols}
        self.backfill = Backfill(
            self.harness.feed,
            self.windows.values(),
            self.harness.feed.grid.timeframe,
            clock,
            self.harness.metrics,
            self._history,
            CAPACITY,
        )

    def _closed(self, candle: Candle) -> None:
        self.candles.append(candle)
        if self.windows[candle.symbol].add_closed(candle) is CandleOutcome.GAP:
            self.backfill.request(candle.symbol)

    def _history(self, symbol: str, candles: Sequence[Candle]) -> None:
        self.windows[symbol].merge_history(candles)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with running(self.harness), asyncio.TaskGroup() as group:
            for symbol in self.windows:
                self.backfill.request(symbol)
            tasks = [
                group.create_task(self.backfill.run()),
                group.create_task(self.backfill.request_overdue()),
            ]
            await until(lambda: all(w.is_complete for w in self.windows.values()))
            yield
            for task in tasks:
                task.cancel()

    def asked(self) -> int:
        """REST requests so far."""
        return sum(self.exchange.rest.requests.values())

    def reached(self, symbol: str, open_ms: int) -> bool:
        """Whether the candle that opened then is in the symbol's window."""
        window = self.windows[symbol]
        return window.is_complete and (window.next_open_ms or 0) > open_ms

    def assert_exact(self) -> None:
        """Every window holds what the exchange recorded."""
        for symbol, window in self.windows.items():
            end_ms = window.next_open_ms
            assert end_ms is not None
            _, truth = self.exchange.playback.history(symbol, end_ms - CAPACITY * SECOND.ms, end_ms)
            assert window.ohlcv().tolist() == truth.tolist()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    clock = ScaledClock(FACTOR)
    playback = second_playback(3)
    async with SandboxExchange(playback, clock=clock, behaviour=Behaviour(updates=2)) as exchange:
        yield Site(exchange, clock)


def coming(site: Site, symbol: str, first: int, count: int) -> list[tuple[str, int]]:
    """Candles that have not opened yet, the first one ``first`` from now."""
    now_ms = SECOND.floor(site.clock.wall_ms())
    return [(symbol, now_ms + at * SECOND.ms) for at in range(first, first + count)]


async def test_a_silent_stream_is_detected_and_recreated(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.running():
        site.exchange.faults.silent = True
        began_s = site.clock.monotonic()
        await until(lambda: site.harness.count("feed_silent_streams"))
        # Twice the five seconds within which such a stream should send.
        assert site.clock.monotonic() - began_s <= 10.0
        site.exchange.faults.silent = False
        before = len(site.candles)
        await until(lambda: len(site.candles) > before + 6)
        await until(lambda: site.exchange.streams.clients == 1)
        now_ms = SECOND.floor(site.clock.wall_ms())
        await until(lambda: all(site.reached(s, now_ms) for s in site.windows))
    site.assert_exact()
    assert site.harness.count("feed_reconnects") == 0
    assert "has sent nothing of" in caplog.text


async def test_a_quiet_market_is_probed_by_rest_before_it_is_called_stale(site: Site) -> None:
    async with site.running():
        for symbol in site.windows:
            site.exchange.faults.untraded.update(coming(site, symbol, 1, 30))
        asked = site.asked()
        await site.clock.sleep(15)
        assert site.asked() > asked
        assert site.harness.count("feed_silent_streams") == 0
        assert site.exchange.streams.clients == 1


async def test_sockets_are_renewed_before_24_hours_without_losing_a_candle(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_RENEW_AFTER_S", 4.0)
    async with site.running():
        await until(lambda: site.harness.has_counted("feed_renewals", 4))
        await until(lambda: site.exchange.streams.clients == 1)
    assert site.harness.count("feed_reconnects") == 0
    for symbol in site.windows:
        opens = sorted({c.open_ms for c in site.candles if c.symbol == symbol})
        assert len(opens) > 10
        assert {after - before for before, after in pairwise(opens)} == {SECOND.ms}
    assert {candle.final_by for candle in site.candles} == {"exchange_flag"}
    site.assert_exact()


async def test_after_boundary_and_grace_without_flag_or_successor_rest_confirms(
    site: Site,
) -> None:
    symbol = site.exchange.playback.symbols[1]
    async with site.running():
        missed = coming(site, symbol, 1, 6)
        site.exchange.faults.skipped.update(missed)
        await until(lambda: site.reached(symbol, missed[2][1]))
        newest = site.windows[symbol].newest
        assert newest is not None
        assert newest.final_by == "rest"
        assert not {(c.symbol, c.open_ms) for c in site.candles} & set(missed)
    site.assert_exact()


@pytest.mark.parametrize("count", [1, 6])
async def test_zero_trade_periods_can_be_missing_altogether_and_are_filled(
    site: Site, count: int
) -> None:
    symbol = site.exchange.playback.symbols[2]
    async with site.running():
        untraded = coming(site, symbol, 1, count)
        site.exchange.faults.untraded.update(untraded)
        window = site.windows[symbol]
        if count > 3:
            # The exchange's clock shows that they are over, though nothing has come since.
            await until(lambda: site.reached(symbol, untraded[1][1]))
            assert window.newest is not None
            assert window.newest.filled
        await until(lambda: site.reached(symbol, untraded[-1][1] + 2 * SECOND.ms))
    assert window.count_untraded(CAPACITY) == count
    _, truth = site.exchange.playback.history(symbol, untraded[0][1] - SECOND.ms, untraded[0][1])
    close = truth[-1][3]
    end_ms = window.next_open_ms or 0
    for _, open_ms in untraded:
        row = window.ohlcv()[(open_ms - end_ms) // SECOND.ms].tolist()
        assert row == [close, close, close, close, 0.0]


@pytest.mark.parametrize("status", [418, 429])
async def test_bans_are_respected_to_the_second(
    site: Site, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols = list(site.windows)
    sent: list[tuple[int, float]] = []
    fetch = ccxt.async_support.Exchange.fetch

    async def noting(exchange: Any, *args: Any, **kwargs: Any) -> Any:
        sent.append((site.clock.wall_ms(), site.harness.count("feed_bans")))
        return await fetch(exchange, *args, **kwargs)

    monkeypatch.setattr(ccxt.async_support.Exchange, "fetch", noting)
    async with site.running():
        site.exchange.ban(status, 6)
        until_ms = site.exchange.faults.ban_until_ms
        missed = [key for symbol in symbols for key in coming(site, symbol, 1, 2)]
        site.exchange.faults.skipped.update(missed)
        await until(lambda: site.harness.count("feed_bans"))
        with pytest.raises(Banned) as caught:
            await site.harness.feed.history(symbols[0], missed[0][1])
        assert caught.value.seconds <= 6.0
        for symbol in symbols:
            site.backfill.request(symbol)
        await until(lambda: all(site.reached(s, at) for s, at in missed))
    # Several candles are overdue at once, so several requests may be under way when the first of
    # them is answered. After that answer none is sent.
    assert not any(bans for at_ms, bans in sent if at_ms < until_ms)
    assert 1 <= site.harness.count("feed_bans") <= len(symbols)
    assert site.asked() <= len(sent)
    # The header gives whole seconds, so the retry may come at once.
    assert min(at_ms for at_ms, bans in sent if bans) <= until_ms + 2_000
    site.assert_exact()


async def test_a_ban_at_the_start_is_waited_for(site: Site) -> None:
    site.exchange.ban(418, 3)
    began_s = site.clock.monotonic()
    async with running(site.harness):
        assert site.clock.monotonic() - began_s >= 3.0
        await until(lambda: site.candles or site.harness.count("feed_messages"))
    assert site.harness.count("feed_bans") == 1


async def test_after_a_reconnect_missed_candles_are_fetched_by_rest(
    site: Site,
) -> None:
    async with site.running():
        for lost in (1, 2):
            await until(lambda: site.exchange.streams.clients == 1)
            site.exchange.streams.abort_all()
            await until(lambda: site.harness.has_counted("feed_reconnects", lost))  # noqa: B023 - at once
            await site.clock.sleep(3.0)
        now_ms = SECOND.floor(site.clock.wall_ms())
        await until(lambda: all(site.reached(s, now_ms) for s in site.windows))
    site.assert_exact()
    assert site.harness.count("feed_reconnects") == 2


async def test_a_dead_connection_leaves_no_socket_when_the_daemon_stops_while_it_closes(
    site: Site,
) -> None:
    draw = random.Random(0)
    proxy = FaultProxy(port_of(site.exchange.ws_url), draw, websocket=True)
    async with nothing_left(), proxy as way, asyncio.TaskGroup() as group:
        urls = site.exchange.rest_url, f"ws://{HOST}:{way.port}"
        harness = make_feed(urls, site.exchange.playback.symbols, site.clock, timeframe="1s")
        await harness.feed.open()
        task = group.create_task(harness.feed.run())
        await until(lambda: harness.closed)
        way.impairment.half_open = True
        # Its close frame waits for an answer while the daemon ends.
        await until(lambda: harness.count("feed_silent_streams"))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        await harness.feed.close()
    sessions = [o for o in gc.get_objects() if isinstance(o, ClientSession)]
    assert all(session.closed for session in sessions)
