"""What of a history a window can go on from."""

from __future__ import annotations

import pytest

from daemon.resume import resumable
from model.candle import Candle, Ohlcv, Timeframe

MINUTE = Timeframe.parse("1m")
T0 = MINUTE.floor(1_700_000_000_000)
CAPACITY = 10


def history(*slots: int) -> list[Candle]:
    ohlcv = Ohlcv(1.0, 2.0, 0.5, 1.5, 3.0)
    opens = [T0 + at * MINUTE.ms for at in slots]
    return [Candle("A/B", at, at + MINUTE.ms, ohlcv, at + MINUTE.ms, 0.0, "rest") for at in opens]


@pytest.mark.parametrize(
    ("slots", "now", "left"),
    [
        (range(10), 10, range(10)),
        (range(10), 14, range(10)),
        (range(10), 19, range(10)),
        (range(10), 20, ()),  # nothing of it would remain
        (range(3, 10), 10, ()),  # too short, and REST brings only what follows
        (range(3, 10), 13, range(3, 10)),
        ((*range(5), *range(6, 12)), 16, range(6, 12)),  # a hole is not known to be a quiet period
        ((*range(5), *range(6, 12)), 15, ()),
        (range(10), 9, ()),  # written by somebody whose clock was wrong
        ((), 10, ()),
        ((4,), 14, range(4, 5)),
    ],
)
def test_consecutive_candles_that_fill_a_window_with_what_follows(
    slots: range, now: int, left: range
) -> None:
    now_ms = T0 + now * MINUTE.ms + 30_000
    assert list(resumable(history(*slots), CAPACITY, MINUTE, now_ms)) == history(*left)
