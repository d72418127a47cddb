"""Overdue candles are requested soon after their boundary, then with growing pauses."""

from __future__ import annotations

import pytest

from daemon.candles.overdue import OverdueCandles
from daemon.candles.window import Window
from model.core.candle import Candle, Ohlcv, Timeframe

MINUTE = Timeframe.parse("1m")
T0 = MINUTE.floor(1_700_000_000_000)


def window(symbol: str, newest_ms: int = T0) -> Window:
    made = Window(symbol, MINUTE, 3)
    made.merge_history([candle(symbol, newest_ms)])
    return made


def candle(symbol: str, open_ms: int) -> Candle:
    ohlcv = Ohlcv(1.0, 2.0, 0.5, 1.5, 3.0)
    return Candle(symbol, open_ms, open_ms + MINUTE.ms, ohlcv, open_ms + MINUTE.ms, 0.0, "rest")


def test_an_untraded_market_may_send_the_closing_event_only_with_its_next_trade() -> None:
    late, on_time = window("A/B"), window("C/D", T0 + MINUTE.ms)
    overdue = OverdueCandles(MINUTE)
    boundary_ms = T0 + 2 * MINUTE.ms
    asked = [
        after_ms / 1e3
        for after_ms in range(0, 60_000, 500)
        if overdue.symbols_due([late, on_time], boundary_ms + after_ms)
    ]
    assert asked == [2.5, 4.5, 8.5, 16.5, 31.5, 46.5]


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("1s", [250, 500, 1_000, 2_000, 4_000, 8_000]),
        ("5s", [1_250, 2_500, 5_000, 10_000]),
        ("15s", [2_500, 4_500, 8_500]),
        ("1d", [2_500, 4_500, 8_500]),
    ],
)
def test_each_short_candle_is_requested_before_the_next_one_closes(
    text: str, asked: list[int]
) -> None:
    frame = Timeframe.parse(text)
    start_ms = frame.floor(T0)
    late = Window("A/B", frame, 3)
    late.merge_history([candle("A/B", start_ms)._replace(close_ms=start_ms + frame.ms)])
    overdue = OverdueCandles(frame)
    boundary_ms = start_ms + 2 * frame.ms
    found = [at for at in range(0, 10_500, 125) if overdue.symbols_due([late], boundary_ms + at)]
    assert found == asked


def test_the_next_candle_has_a_schedule_of_its_own() -> None:
    late = window("A/B")
    overdue = OverdueCandles(MINUTE)
    boundary_ms = T0 + 2 * MINUTE.ms
    assert overdue.symbols_due([late], boundary_ms + 2_500) == ["A/B"]
    late.add_closed(candle("A/B", T0 + MINUTE.ms))
    assert overdue.symbols_due([late], boundary_ms + 30_000) == []
    assert overdue.symbols_due([late], boundary_ms + MINUTE.ms + 2_499) == []
    assert overdue.symbols_due([late], boundary_ms + MINUTE.ms + 2_500) == ["A/B"]


def test_an_empty_window_is_not_overdue_but_under_way() -> None:
    assert OverdueCandles(MINUTE).symbols_due([Window("A/B", MINUTE, 3)], T0) == []
