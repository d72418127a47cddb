"""Missing candles are requested once, retried with backoff, and an outage is logged once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from daemon.candles.grid import Grid
from daemon.candles.window import Window
from daemon.feed.backfill import Backfill
from daemon.metrics.metrics import Metrics
from model.core.candle import Candle, Ohlcv, Timeframe
from model.core.errors import ExchangeError
from tests.support.manual_clock import ManualClock, settle

MINUTE = Timeframe.parse("1m")
NOW_MS = MINUTE.floor(1_700_000_000_000) + 5_000
CAPACITY = 10
SYMBOLS = tuple(f"S{number:02d}/USDT" for number in range(20))


def candle(symbol: str, open_ms: int) -> Candle:
    ohlcv = Ohlcv(1.0, 2.0, 0.5, 1.5, 3.0)
    return Candle(symbol, open_ms, open_ms + MINUTE.ms, ohlcv, NOW_MS, 0.0, "rest")


class Archive:
    """A feed's history: every closed candle, unless it is away or the test holds it back."""

    grid = Grid("binance", MINUTE)

    def __init__(self, clock: ManualClock) -> None:
        self.asked: list[tuple[str, int]] = []
        self.away: set[str] = set()
        self.held = asyncio.Event()
        self.held.set()
        self.most_at_once = 0
        self.end_ms: int | None = None
        self.begins_ms = 0
        self._clock = clock
        self._under_way: set[str] = set()

    def earliest_ms(self) -> int:
        return self._clock.wall_ms()

    async def history(self, symbol: str, since_ms: int) -> list[Candle]:
        self.asked.append((symbol, since_ms))
        assert symbol not in self._under_way
        self._under_way.add(symbol)
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        await self.held.wait()
        for _ in range(1 + SYMBOLS.index(symbol) % 3):
            await asyncio.sleep(0)
        self._under_way.discard(symbol)
        if symbol in self.away:
            msg = f"binance: fetching {symbol} candles: no answer in time"
            raise ExchangeError(msg)
        end_ms = self.end_ms or MINUTE.floor(self._clock.wall_ms())
        first_ms = max(since_ms, self.begins_ms)
        return [candle(symbol, at) for at in range(first_ms, end_ms, MINUTE.ms)]


class Bench:
    """A backfill with everything around it."""

    def __init__(self, symbols: Sequence[str] = SYMBOLS) -> None:
        self.clock = ManualClock(NOW_MS)
        self.archive = Archive(self.clock)
        self.metrics = Metrics()
        self.windows = {symbol: Window(symbol, MINUTE, CAPACITY) for symbol in symbols}
        self.backfill = Backfill(
            self.archive,
            self.windows.values(),
            MINUTE,
            self.clock,
            self.metrics,
            self._repair,
            CAPACITY,
            draw=lambda: 0.0,
        )

    def _repair(self, symbol: str, candles: Sequence[Candle]) -> None:
        self.windows[symbol].merge_history(candles)

    @property
    def asked(self) -> list[str]:
        """Symbols whose history was requested since the last call."""
        taken = [symbol for symbol, _ in self.archive.asked]
        self.archive.asked.clear()
        return taken

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.backfill.run())
            await settle()
            yield
            task.cancel()


async def test_requests_coalesce() -> None:
    bench = Bench()
    for symbol in (*SYMBOLS[:3], *SYMBOLS[:3]):
        bench.backfill.request(symbol)
    async with bench.running():
        assert sorted(bench.asked) == list(SYMBOLS[:3])
        assert bench.metrics.registry.get_sample_value("candlecast_feed_backfills_total") == 3
        await bench.clock.advance(3_600)
        assert bench.asked == []


async def test_a_request_during_its_own_fetch_is_served_after_it() -> None:
    bench = Bench()
    bench.archive.held.clear()
    bench.backfill.request(SYMBOLS[0])
    async with bench.running():
        assert bench.asked == [SYMBOLS[0]]
        # Candles that closed after the request may be missing from the response.
        bench.backfill.request(SYMBOLS[0])
        bench.backfill.request(SYMBOLS[0])
        bench.archive.held.set()
        await settle()
        assert bench.asked == [SYMBOLS[0]]


async def test_no_symbol_is_fetched_twice_at_once_and_few_at_a_time() -> None:
    bench = Bench()
    bench.archive.held.clear()
    for symbol in SYMBOLS:
        bench.backfill.request(symbol)
    async with bench.running():
        for symbol in SYMBOLS:
            bench.backfill.request(symbol)
        await settle()
        under_way = bench.asked
        assert len(set(under_way)) == len(under_way) == 4
        bench.archive.held.set()
        await settle()
        assert set(bench.asked) | set(under_way) == set(SYMBOLS)
    assert bench.archive.most_at_once == 4
    assert all(window.is_complete for window in bench.windows.values())


async def test_an_empty_window_requests_all_candles_a_filled_one_the_following() -> None:
    bench = Bench()
    async with bench.running():
        bench.backfill.request(SYMBOLS[0])
        await settle()
        boundary_ms = MINUTE.floor(NOW_MS)
        overlap_ms = 3 * MINUTE.ms
        assert bench.archive.asked == [
            (SYMBOLS[0], boundary_ms - CAPACITY * MINUTE.ms - overlap_ms)
        ]
        assert bench.windows[SYMBOLS[0]].is_complete
        bench.clock.move_to(NOW_MS + 5 * MINUTE.ms)
        bench.backfill.request(SYMBOLS[0])
        await settle()
        assert bench.archive.asked[1:] == [(SYMBOLS[0], boundary_ms - overlap_ms)]
    assert bench.windows[SYMBOLS[0]].next_open_ms == boundary_ms + 5 * MINUTE.ms


@pytest.mark.parametrize("count", [1, 2, 9])
async def test_retries_back_off_and_an_outage_is_logged_once(
    caplog: pytest.LogCaptureFixture, count: int
) -> None:
    caplog.set_level("INFO", logger="candlecast.feed")
    bench = Bench()
    bench.archive.away = set(SYMBOLS[:count])
    for symbol in SYMBOLS[:count]:
        bench.backfill.request(symbol)
    seen: set[str] = set()
    async with bench.running():
        # During an outage a few symbols are enough to detect its end.
        assert len(bench.asked) == min(count, 4)
        for delay_s in (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0):
            await bench.clock.advance(delay_s - 0.01)
            assert bench.asked == []
            await bench.clock.advance(0.01)
            asked = bench.asked
            assert len(asked) == len(set(asked)) == min(count, 4)
            seen.update(asked)
        assert seen == set(SYMBOLS[:count])
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "no answer in time; trying again" in caplog.text

        bench.archive.away.clear()
        await bench.clock.advance(15.0)
        assert sorted(bench.asked) == list(SYMBOLS[:count])
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        assert "answers again" in caplog.text
        assert bench.windows[SYMBOLS[0]].is_complete

        # After recovery, the next failure is logged again and retried soon.
        bench.archive.away.add(SYMBOLS[0])
        bench.backfill.request(SYMBOLS[0])
        await settle()
        assert bench.asked == [SYMBOLS[0]]
        await bench.clock.advance(0.5)
        assert bench.asked == [SYMBOLS[0]]
        assert [r.levelname for r in caplog.records] == ["WARNING", "INFO", "WARNING"]


async def test_one_failing_symbol_does_not_mean_that_the_exchange_is_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="candlecast.feed")
    bench = Bench()
    bench.archive.away = {SYMBOLS[1]}
    for symbol in SYMBOLS[:4]:
        bench.backfill.request(symbol)
    async with bench.running():
        for _ in range(5):
            await bench.clock.advance(15.0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert all(bench.windows[symbol].is_complete for symbol in (SYMBOLS[0], *SYMBOLS[2:4]))


async def test_one_failing_symbol_does_not_delay_a_new_request() -> None:
    bench = Bench()
    bench.archive.away = {SYMBOLS[1]}
    bench.backfill.request(SYMBOLS[1])
    async with bench.running():
        for _ in range(6):
            await bench.clock.advance(15.0)
        bench.backfill.request(SYMBOLS[0])
        await settle()
        assert bench.windows[SYMBOLS[0]].is_complete


async def test_an_exchange_that_is_down_gets_no_requests_between_retries() -> None:
    bench = Bench()
    bench.archive.away = set(SYMBOLS)
    bench.backfill.request(SYMBOLS[1])
    async with bench.running():
        for delay_s in (0.5, 1.0, 2.0, 4.0, 8.0):
            await bench.clock.advance(delay_s)
        bench.archive.asked.clear()
        for symbol in SYMBOLS:
            bench.backfill.request(symbol)
        await settle()
        assert len(bench.asked) == 4
        for symbol in SYMBOLS:
            bench.backfill.request(symbol)
        await bench.clock.advance(14.9)
        assert bench.asked == []
        await bench.clock.advance(0.1)
        assert len(bench.asked) == 4
        bench.archive.away.clear()
        await bench.clock.advance(15)
        assert sorted(bench.asked) == list(SYMBOLS)
        bench.backfill.request(SYMBOLS[1])
        await settle()
        assert bench.asked == [SYMBOLS[1]]


async def test_requests_that_failed_before_the_start_are_retried_after_it() -> None:
    bench = Bench()
    bench.archive.away = {SYMBOLS[0]}
    for symbol in SYMBOLS[:2]:
        bench.backfill.request(symbol)
    await bench.backfill.fetch_requested()
    assert bench.asked == list(SYMBOLS[:2])
    bench.archive.away.clear()
    async with bench.running():
        assert bench.asked == []
        await bench.clock.advance(0.5)
        assert bench.asked == [SYMBOLS[0]]
    assert bench.windows[SYMBOLS[0]].is_complete


async def test_a_history_that_lags_behind_the_stream_is_requested_again() -> None:
    bench = Bench()
    symbol = SYMBOLS[0]
    window = bench.windows[symbol]
    boundary_ms = MINUTE.floor(NOW_MS)
    bench.archive.end_ms = boundary_ms - MINUTE.ms
    bench.backfill.request(symbol)
    async with bench.running():
        assert bench.asked == [symbol]
        window.add_closed(candle(symbol, boundary_ms))
        assert window.gap == (boundary_ms - MINUTE.ms, boundary_ms)
        bench.backfill.request(symbol)
        await settle()
        assert bench.asked == [symbol]
        bench.archive.end_ms = boundary_ms
        await bench.clock.advance(0.5)
        assert bench.asked == [symbol]
        assert bench.windows[symbol].is_complete
        await bench.clock.advance(60)
        assert bench.asked == []


async def test_cancelled_in_the_middle_of_a_fetch() -> None:
    bench = Bench()
    bench.archive.held.clear()
    bench.backfill.request(SYMBOLS[0])
    async with bench.running():
        assert bench.asked == [SYMBOLS[0]]


async def test_a_history_that_does_not_join_the_window_is_not_filled() -> None:
    bench = Bench()
    window = bench.windows[SYMBOLS[0]]
    bench.backfill.request(SYMBOLS[0])
    async with bench.running():
        following_ms = window.next_open_ms
        assert following_ms is not None
        bench.clock.move_to(NOW_MS + 5 * MINUTE.ms)
        bench.archive.begins_ms = following_ms + 2 * MINUTE.ms
        bench.backfill.request(SYMBOLS[0])
        await settle()
        assert window.next_open_ms == following_ms
        bench.archive.begins_ms = 0
        await bench.clock.advance(0.5)
        assert window.next_open_ms == following_ms + 5 * MINUTE.ms
        assert window.count_untraded(CAPACITY) == 0


async def test_a_history_that_never_joins_the_window_is_requested_as_a_whole() -> None:
    bench = Bench()
    window = bench.windows[SYMBOLS[0]]
    bench.backfill.request(SYMBOLS[0])
    async with bench.running():
        following_ms = window.next_open_ms
        assert following_ms is not None
        bench.clock.move_to(NOW_MS + 5 * MINUTE.ms)
        # The exchange keeps too few candles to reach the window.
        bench.archive.begins_ms = following_ms + 2 * MINUTE.ms
        bench.backfill.request(SYMBOLS[0])
        await settle()
        for delay_s in (0.5, 1.0, 2.0):
            await bench.clock.advance(delay_s)
        assert (window.next_open_ms, len(window)) == (following_ms, CAPACITY)
        await bench.clock.advance(4.0)
        assert len(window) == 0
        await bench.clock.advance(8.0)
        assert len(window) == 3
        assert window.next_open_ms == following_ms + 5 * MINUTE.ms
        assert window.count_untraded(CAPACITY) == 0
        assert not window.is_complete
        bench.archive.asked.clear()
        await bench.clock.advance(60.0)
        assert bench.asked == []


async def test_after_filled_candles_the_last_known_one_is_requested_again() -> None:
    bench = Bench()
    window = bench.windows[SYMBOLS[0]]
    bench.backfill.request(SYMBOLS[0])
    async with bench.running():
        last_ms = MINUTE.floor(NOW_MS) - MINUTE.ms
        for at in range(1, 6):
            window.add_closed(candle(SYMBOLS[0], last_ms + at * MINUTE.ms)._replace(filled=True))
        bench.archive.asked.clear()
        bench.backfill.request(SYMBOLS[0])
        await settle()
        assert bench.archive.asked == [(SYMBOLS[0], last_ms)]


async def test_a_window_left_far_behind_is_refilled() -> None:
    bench = Bench()
    bench.backfill.request(SYMBOLS[0])
    async with bench.running():
        bench.clock.move_to(NOW_MS + 3 * CAPACITY * MINUTE.ms)
        bench.archive.asked.clear()
        bench.backfill.request(SYMBOLS[0])
        await settle()
        now_ms = MINUTE.floor(bench.clock.wall_ms())
        assert bench.archive.asked == [(SYMBOLS[0], now_ms - (CAPACITY + 3) * MINUTE.ms)]
        assert bench.windows[SYMBOLS[0]].is_complete
        assert bench.windows[SYMBOLS[0]].count_untraded(CAPACITY) == 0
