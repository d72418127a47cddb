"""Check which candles of a history a window starts from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from daemon.candles.window import Window
from daemon.metrics.metrics import Metrics
from daemon.persistence.recorder import Recorder
from daemon.persistence.warm_start import resume, usable_candles
from model.core.candle import Candle, Ohlcv, Timeframe
from model.core.market import MarketKey
from model.history.store import History
from tests.support.manual_clock import ManualClock

MINUTE = Timeframe.parse("1m")
T0 = MINUTE.floor(1_700_000_000_000)
CAPACITY = 10


def history(*slots: int) -> list[Candle]:
    ohlcv = Ohlcv(1.0, 2.0, 0.5, 1.5, 3.0)
    opens = [T0 + at * MINUTE.ms for at in slots]
    return [Candle("A/B", at, at + MINUTE.ms, ohlcv, at + MINUTE.ms, 0.0, "rest") for at in opens]


def minutes(count: float) -> int:
    return T0 + round(count * MINUTE.ms)


@pytest.mark.parametrize(
    ("slots", "now", "consecutive", "after_gap"),
    [
        (range(10), 10, range(10), ()),
        (range(10), 14, range(10), ()),
        (range(10), 19, range(10), ()),
        (range(10), 20, (), ()),  # the window needs none of them
        (range(3, 10), 10, (), ()),  # too short: REST brings only what follows
        (range(3, 10), 13, range(3, 10), ()),
        # A gap before the oldest candle needed does not count.
        ((*range(5), *range(6, 12)), 16, range(6, 12), ()),
        ((*range(5), *range(6, 12)), 14, range(5), range(6, 12)),
        # The oldest candle needed is missing: REST must bring all of it.
        ((*range(5), *range(6, 12)), 15, (), ()),
        # A live candle was written, the one before it was not.
        ((*range(9), 10), 11, range(9), (10,)),
        ((*range(9), 10), 14, range(9), (10,)),
        ((*range(3), 4, 5, *range(7, 10)), 10, range(3), (4, 5, *range(7, 10))),
        (range(9), 10, range(9), ()),  # the newest candle is missing
        ((0, 9), 10, (0,), (9,)),
        (range(14), 10, range(10), ()),  # written by a process whose clock was wrong
        (range(10), 9, (), ()),
        ((*range(10), 5_000), 10, range(10), ()),
        ((), 10, (), ()),
        ((4,), 14, range(4, 5), ()),
    ],
)
def test_candles_that_reach_back_far_enough_are_used_and_those_behind_holes_wait(
    slots: Sequence[int], now: int, consecutive: Sequence[int], after_gap: Sequence[int]
) -> None:
    found = usable_candles(history(*slots), CAPACITY, MINUTE, minutes(now + 0.5))
    assert list(found.consecutive) == history(*consecutive)
    assert list(found.after_gap) == history(*after_gap)


def test_candles_off_the_grid_are_ignored() -> None:
    odd = history(4)[0]._replace(open_ms=minutes(4.5), close_ms=minutes(5.5))
    found = usable_candles(
        [*history(*range(5)), odd, *history(*range(5, 10))], 10, MINUTE, minutes(10)
    )
    assert list(found.consecutive) == history(*range(10))
    assert not found.after_gap


async def test_windows_are_filled_from_a_file_in_which_candles_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="candlecast.persistence")
    slots = {
        "A/B": range(11),
        "C/D": (*range(1, 6), *range(7, 9), 10),
        "E/F": (10,),
        "G/H": (),
        # Written by a process whose clock was wrong: it is ignored.
        "I/J": (*range(11), 9_999),
    }
    candles = [c._replace(symbol=s) for s, at in slots.items() for c in history(*at)]
    odd = history(3)[0]._replace(symbol="A/B", open_ms=minutes(10.2), close_ms=minutes(11.2))
    market = MarketKey("x", MINUTE)
    file = await asyncio.to_thread(History, tmp_path / "history.sqlite")
    await asyncio.to_thread(file.add_candles, market, [*candles, odd])
    clock = ManualClock(minutes(11.5))
    recorder = Recorder(file, market, 9.0, clock, Metrics())
    windows = {symbol: Window(symbol, MINUTE, CAPACITY) for symbol in slots}
    try:
        await resume([*windows.values()], recorder, market, CAPACITY, clock)
    finally:
        await asyncio.to_thread(file.close)
    whole = {symbol for symbol, window in windows.items() if window.is_complete}
    assert whole == {"A/B", "I/J"}
    assert windows["C/D"].next_open_ms == minutes(6)
    assert windows["C/D"].gap == (minutes(6), minutes(7))
    assert len(windows["E/F"]) == len(windows["G/H"]) == 0
    assert "3 of 5 symbols resume from history; 1 of them have gaps that REST fills" in caplog.text
    assert "1 candles of the history are off the 1m grid and are ignored" in caplog.text
    # REST brings the missing candles, and the window takes those that waited behind the gap.
    windows["C/D"].merge_history(history(*range(3, 8)))
    assert windows["C/D"].gap == (minutes(9), minutes(10))
    windows["C/D"].merge_history(history(9))
    assert windows["C/D"].is_complete
    assert windows["C/D"].next_open_ms == minutes(11)
