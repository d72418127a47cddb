"""The grid of an exchange is determined once, or refused if its candles follow none."""

from __future__ import annotations

import pytest

from daemon.candles.grid import Grid
from daemon.jobs.rest_pages import RestPages
from model.core.candle import Timeframe
from model.core.errors import NotOffered
from tests.support.manual_clock import ManualClock

WEEK = Timeframe.parse("1w")
DAY_MS = 86_400_000
THURSDAY_MS = 2_900 * WEEK.ms
NOW_MS = THURSDAY_MS + 20 * WEEK.ms + 1_000


class Market:
    """Returns the candles of each symbol and ignores the other arguments."""

    id = "somewhere"

    def __init__(self, opens_ms: dict[str, list[int]]) -> None:
        self.opens_ms = opens_ms
        self.asked: list[str] = []

    async def fetch(self, symbol: str, since_ms: int, limit: int) -> list[list[float]]:
        self.asked.append(symbol)
        later = [at for at in self.opens_ms[symbol] if at >= since_ms]
        return [[at, 1.0, 2.0, 0.5, 1.5, 3.0] for at in later[:limit]]

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str, since_ms: int, limit: int
    ) -> list[list[float]]:
        assert timeframe == "1w"
        return await self.fetch(symbol, since_ms, limit)


def weeks(first: int, end: int) -> list[int]:
    return [THURSDAY_MS + at * WEEK.ms for at in range(first, end)]


async def test_one_symbol_with_enough_candles_is_enough() -> None:
    market = Market({"A/B": weeks(0, 21), "C/D": []})
    grid = Grid("x", WEEK)
    await grid.learn(market.fetch, ["A/B", "C/D"], NOW_MS)
    assert grid.timeframe.on_grid(THURSDAY_MS)
    assert market.asked == ["A/B"]


async def test_new_listings_are_checked_together_with_the_next_symbols() -> None:
    # A symbol's first candle may begin with its first trade.
    market = Market({"A/B": [NOW_MS - 500], "C/D": [], "E/F": weeks(0, 21), "G/H": []})
    grid = Grid("x", WEEK)
    await grid.learn(market.fetch, ["A/B", "C/D", "E/F", "G/H"], NOW_MS)
    assert grid.timeframe.on_grid(THURSDAY_MS)
    assert market.asked == ["A/B", "C/D", "E/F"]


async def test_without_candles_the_default_grid_applies_until_some_arrive() -> None:
    market = Market({"A/B": []})
    grid = Grid("x", WEEK)
    await grid.learn(market.fetch, ["A/B"], NOW_MS)
    assert grid.timeframe == WEEK
    grid.learn_from([[], ["?"], [None], [True], [10**30], [5]])
    assert grid.timeframe == WEEK
    grid.learn_from([[at] for at in weeks(0, 3)])
    thursdays = grid.timeframe
    assert thursdays.on_grid(THURSDAY_MS)
    # The grid is kept: later candles are checked against it.
    grid.learn_from([[at + DAY_MS] for at in weeks(0, 9)])
    assert grid.timeframe == thursdays


async def test_candles_of_another_length_are_refused() -> None:
    market = Market({"A/B": [THURSDAY_MS + at * 8 * DAY_MS for at in range(18)]})
    with pytest.raises(
        NotOffered,
        match=r"^x: the 1w candles do not open every 1w: .*Sun 2025-12-14 00:00:00 UTC; "
        r"choose another trading\.timeframe$",
    ):
        await Grid("x", WEEK).learn(market.fetch, ["A/B"], NOW_MS)


def test_candles_off_whole_seconds_are_refused() -> None:
    with pytest.raises(NotOffered, match=r"x: the 1s candles open between two seconds \(Thu 2025"):
        Grid("x", Timeframe.parse("1s")).learn_from([[THURSDAY_MS + 250]])


async def test_pages_count_skipped_rows(caplog: pytest.LogCaptureFixture) -> None:
    opens = sorted([*weeks(0, 21), *(at + 3 * DAY_MS for at in weeks(2, 5))])
    pages = RestPages(Market({"A/B": opens}), WEEK, ManualClock(NOW_MS), "again")
    await pages.learn_grid(["A/B"])
    found: list[int] = []
    async for _, rows in pages.rows("A/B", THURSDAY_MS, weeks(20, 21)[0]):
        found += [open_ms for open_ms, _ in rows]
    assert found == weeks(0, 20)
    (message,) = caplog.messages
    assert message == (
        "left out 3 1w candles of A/B that are off the grid, which has a boundary at "
        "Thu 2025-12-18 00:00:00 UTC"
    )
