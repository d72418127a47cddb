"""One odd candle of an exchange interrupts forecasts for minutes at most, wherever it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import ccxt.pro
import pytest

from daemon.candles.closing import ClosingRule
from daemon.candles.window import CandleOutcome, Window
from daemon.exchange.exchange_clock import ExchangeClock, Reading
from daemon.exchange.rest import RestClient
from daemon.exchange.source import MarketSource
from daemon.feed.backfill import Backfill
from daemon.metrics.metrics import Metrics
from model.core.candle import Candle, Timeframe
from model.core.errors import BadCandle
from tests.support.manual_clock import ManualClock

MINUTE = Timeframe.parse("1m")
CAPACITY = 40
MINUTES = 12
START_MS = MINUTE.floor(1_767_225_600_000)
BAD = 3
"""The minute after the start whose candle is odd."""

Row = list[Any]
SOUND: Row = ["100", "101", "99", "100.5", "5"]


def changed(**values: Any) -> Row:
    """The valid candle with other values."""
    names = ("open", "high", "low", "close", "volume")
    return [values.get(name, value) for name, value in zip(names, SOUND, strict=True)]


CLAMPED: dict[str, tuple[Row, list[float]]] = {
    "open below": (changed(open="98.9"), [98.9, 101.0, 98.9, 100.5, 5.0]),
    "open above": (changed(open="101.2"), [101.2, 101.2, 99.0, 100.5, 5.0]),
    "close below": (changed(close="98.5"), [100.0, 101.0, 98.5, 98.5, 5.0]),
    "close above": (changed(close="102"), [100.0, 102.0, 99.0, 102.0, 5.0]),
    "high and low swapped": (changed(high="99", low="101"), [100.0, 101.0, 99.0, 100.5, 5.0]),
    "no volume": (changed(volume=None), [100.0, 101.0, 99.0, 100.5, 0.0]),
}
"""What is odd, and what the window holds of it."""

UNUSABLE: dict[str, Row] = {
    "far outside": changed(open="50"),
    "zero price": changed(open="0"),
    "negative price": changed(low="-99"),
    "missing price": changed(close=None),
    "not a number": changed(high="NaN"),
    "huge price": changed(high="1e308"),
    "tiny price": changed(low="1e-308"),
    "negative volume": changed(volume="-1"),
    "huge volume": changed(volume="1e308"),
    "words": changed(open="none", close="none"),
}
ODD = {name: row for name, (row, _) in CLAMPED.items()} | UNUSABLE
FILLED = [100.5, 100.5, 100.5, 100.5, 0.0]


class Binance(ccxt.pro.binance):  # type: ignore[misc]
    """ccxt's class, which gets its answers from a test."""

    answer: Callable[[int, int], list[Row]]

    def __init__(self) -> None:
        super().__init__({"enableRateLimit": False})
        market = {"id": "AB", "symbol": "A/B", "base": "A", "quote": "B"}
        spot = {"type": "spot", "spot": True, "active": True}
        self.set_markets([self.safe_market_structure(market | spot)])

    async def fetch(self, url: str, *_args: object, **_more: object) -> object:
        since_ms = int(url.partition("startTime=")[2].partition("&")[0])
        limit = int(url.partition("limit=")[2].partition("&")[0])
        return json.loads(json.dumps(self.answer(since_ms, limit)))


@cache
def binance() -> Binance:
    """One for all tests: making it takes longer than a test."""
    return Binance()


class Bench:
    """An exchange with odd candles, and what takes its candles in."""

    def __init__(self, listed_ms: int = START_MS - 100 * MINUTE.ms) -> None:
        self.clock = ManualClock(START_MS + 5_000)
        self.minute = 0
        self.listed_ms = listed_ms
        self.in_history: dict[int, list[Row]] = {}
        self.in_stream: dict[int, Row | None] = {}
        self.asked = 0
        self.metrics = Metrics(10)
        time = ExchangeClock(self.clock)
        self._time = time
        self.learn_time()
        self.refused: list[Exception] = []
        source = MarketSource("binance", None, None, ("A/B",), MINUTE)
        self.rest = RestClient(source, time, self.metrics, self.refused.append)
        self.rest.exchange = binance()
        self.rest.exchange.answer = self.rows
        self.window = Window("A/B", MINUTE, CAPACITY)
        self.rule = ClosingRule(MINUTE, 1_000)
        self.backfill = Backfill(
            self.rest, [self.window], MINUTE, self.clock, self.metrics, self.take, CAPACITY
        )

    def learn_time(self) -> None:
        for _ in range(3):
            now_s = self.clock.monotonic()
            self._time.add_reading(Reading(now_s, now_s, self.clock.wall_ms() + 1))

    def take(self, _symbol: str, candles: Sequence[Candle]) -> None:
        following_ms = self.window.next_open_ms or 0
        for candle in candles:
            if candle.open_ms < following_ms:
                self.window.add_closed(candle)
        self.window.merge_history([c for c in candles if c.open_ms >= following_ms])

    def rows(self, since_ms: int, limit: int) -> list[Row]:
        """The exchange's history, the candle that is forming included."""
        self.asked += 1
        first_ms = max(self.listed_ms, -(-since_ms // MINUTE.ms) * MINUTE.ms)
        found = []
        for open_ms in range(first_ms, self.clock.wall_ms(), MINUTE.ms):
            found += self.in_history.get(open_ms, [[open_ms, *SOUND]])
        return found[:limit]

    async def catch_up(self) -> None:
        self.backfill._failed.clear()  # noqa: SLF001 - without the wait before the next try
        self.backfill.request("A/B")
        await self.backfill.fetch_requested()

    async def pass_minute(self) -> bool:
        """A candle closes; whether it can be forecast from when the next one is about to."""
        open_ms, close_ms = at(self.minute), at(self.minute + 1)
        self.minute += 1
        self.pass_to(close_ms + 50)
        row = self.in_stream.get(open_ms, SOUND)
        verdict: CandleOutcome | None = None
        if row is not None:
            try:
                final = self.rule.on_update(
                    "A/B", open_ms, tuple(row), closed=True,
                    now_ms=self.clock.wall_ms(), now_s=self.clock.monotonic(),
                )  # fmt: skip
            except BadCandle as error:
                self.refused.append(error)
            else:
                assert final is not None
                verdict = self.window.add_closed(final)
        for after_ms in (3_000, 10_000):
            self.pass_to(close_ms + after_ms)
            if not self._is_current(open_ms) or verdict is CandleOutcome.GAP:
                await self.catch_up()
        return self._is_current(open_ms)

    def pass_to(self, wall_ms: int) -> None:
        self.clock.move_to(wall_ms)
        self.learn_time()

    def _is_current(self, open_ms: int) -> bool:
        return self.window.is_complete and (self.window.next_open_ms or 0) > open_ms

    async def lost(self) -> int:
        """Minutes without a forecast, of all that pass."""
        await self.catch_up()
        return sum([not await self.pass_minute() for _ in range(MINUTES)])

    def held(self, open_ms: int) -> list[float]:
        assert self.window.next_open_ms is not None
        back = (self.window.next_open_ms - open_ms) // MINUTE.ms
        values: list[float] = self.window.ohlcv()[-back].tolist()
        return values


def at(minute: int) -> int:
    return START_MS + minute * MINUTE.ms


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("name", ODD)
async def test_odd_in_stream_and_history(bench: Bench, name: str) -> None:
    bench.in_history[at(BAD)] = [[at(BAD), *ODD[name]]]
    bench.in_stream[at(BAD)] = ODD[name]
    assert await bench.lost() <= 1
    if name in CLAMPED:
        assert bench.held(at(BAD)) == CLAMPED[name][1]
        assert (bench.window.count_repaired(CAPACITY), bench.window.count_untraded(CAPACITY)) == (
            1,
            0,
        )
    else:
        assert bench.held(at(BAD)) == FILLED
        assert (bench.window.count_repaired(CAPACITY), bench.window.count_untraded(CAPACITY)) == (
            0,
            1,
        )
        assert bench.refused


@pytest.mark.parametrize("name", ODD)
async def test_odd_in_the_stream_only(bench: Bench, name: str) -> None:
    bench.in_stream[at(BAD)] = ODD[name]
    assert await bench.lost() == 0
    if name != "no volume":
        # The history has supplied the correct candle.
        assert bench.held(at(BAD)) == [100.0, 101.0, 99.0, 100.5, 5.0]


@pytest.mark.parametrize("name", ODD)
async def test_odd_in_the_history_only(bench: Bench, name: str) -> None:
    bench.in_history[at(BAD)] = [[at(BAD), *ODD[name]]]
    # The stream misses some, so that the history is asked while it shows the odd one.
    bench.in_stream |= {at(BAD + 2): None, at(BAD + 3): None}
    assert await bench.lost() == 0
    assert bench.held(at(BAD)) == [100.0, 101.0, 99.0, 100.5, 5.0]
    assert bench.window.count_repaired(CAPACITY) == bench.window.count_untraded(CAPACITY) == 0


@pytest.mark.parametrize("name", ODD)
async def test_several_in_a_row(bench: Bench, name: str) -> None:
    odd = [at(BAD + more) for more in range(6)]
    for open_ms in odd:
        bench.in_history[open_ms] = [[open_ms, *ODD[name]]]
        bench.in_stream[open_ms] = ODD[name]
    assert await bench.lost() <= len(odd)
    assert bench.window.is_complete
    counted = bench.window.count_repaired(CAPACITY) + bench.window.count_untraded(CAPACITY)
    assert counted == len(odd)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("first", [-1, -2, -CAPACITY // 2, -CAPACITY, -CAPACITY - 3])
async def test_odd_where_the_window_begins(bench: Bench, name: str, first: int) -> None:
    bench.in_history[at(first)] = [[at(first), *ODD[name]]]
    assert await bench.lost() == 0


@pytest.mark.parametrize("name", ODD)
async def test_many_odd_candles_all_over_the_window(bench: Bench, name: str) -> None:
    for back in range(2, CAPACITY, 3):
        bench.in_history[at(-back)] = [[at(-back), *ODD[name]]]
    assert await bench.lost() == 0
    # One question, and one more to confirm what cannot be used.
    assert bench.asked <= 2


@pytest.mark.parametrize(
    "row",
    [
        pytest.param([at(BAD) + 1, *SOUND], id="off the grid"),
        pytest.param([None, *SOUND], id="no time"),
        pytest.param([str(at(BAD)) + "x", *SOUND], id="time in words"),
        pytest.param([0, *SOUND], id="of 1970"),
        pytest.param([at(10**9), *SOUND], id="of another millennium"),
        pytest.param([at(BAD)], id="nothing but the time"),
        pytest.param([], id="nothing"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
async def test_a_row_without_its_period(bench: Bench, row: Row, *, beside: bool) -> None:
    """An extra row has no effect; a row in place of a candle blocks the period."""
    bench.in_history[at(BAD)] = [row, [at(BAD), *SOUND]] if beside else [row]
    bench.in_stream[at(BAD)] = None
    assert await bench.lost() <= (0 if beside else 1)
    assert bench.held(at(BAD)) == ([100.0, 101.0, 99.0, 100.5, 5.0] if beside else FILLED)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_rows_for_one_candle_the_valid_one_counts(
    bench: Bench, name: str, order: int
) -> None:
    bench.in_history[at(BAD)] = [[at(BAD), *ODD[name]], [at(BAD), *SOUND]][::order]
    bench.in_stream[at(BAD)] = None
    assert await bench.lost() == 0
    assert bench.held(at(BAD)) == [100.0, 101.0, 99.0, 100.5, 5.0]


async def test_a_row_that_is_unusable_in_one_response_only_is_not_filled(bench: Bench) -> None:
    """A corrupted row is not filled as untraded: the next response contains the candle."""
    answers = iter([UNUSABLE["missing price"]])

    def rows(since_ms: int, limit: int) -> list[Row]:
        garbled = next(answers, SOUND)
        bench.in_history[at(BAD)] = [[at(BAD), *garbled]]
        return Bench.rows(bench, since_ms, limit)

    bench.in_stream[at(BAD)] = None
    await bench.catch_up()
    for _ in range(BAD):
        assert await bench.pass_minute()
    bench.rest.exchange.answer = rows
    assert await bench.pass_minute()
    assert bench.held(at(BAD)) == [100.0, 101.0, 99.0, 100.5, 5.0]
    assert bench.window.count_untraded(CAPACITY) == 0
    assert len(bench.refused) == 1
