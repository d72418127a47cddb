"""A symbol counts as silent if it is traded and the stream does not send it."""

from __future__ import annotations

import pytest

from daemon.feed.silent_symbols import SilentSymbols
from model.core.candle import Candle, Ohlcv, Timeframe

MINUTE = Timeframe.parse("1m")
START_MS = 1_764_460_800_000
NAMES = ("A/U", "B/U")


def candle(at: int, symbol: str = "A/U", volume: float = 1.0, frame: Timeframe = MINUTE) -> Candle:
    open_ms = START_MS + at * frame.ms
    close_ms = open_ms + frame.ms
    ohlcv = Ohlcv(1.0, 1.0, 1.0, 1.0, volume)
    return Candle(symbol, open_ms, close_ms, ohlcv, close_ms, at * frame.ms / 1e3, "rest")


def tracking(frame: Timeframe = MINUTE) -> SilentSymbols:
    """It begins in the middle of candle 0."""
    made = SilentSymbols(frame)
    made.set_symbols(NAMES, START_MS + frame.ms // 2, 0.0)
    return made


def test_a_stream_that_keeps_up_with_the_history_is_not_silent() -> None:
    silent = tracking()
    for at in range(5):
        silent.on_update(candle(at))
        silent.on_history([candle(at - 3), candle(at - 2), candle(at - 1)])
        assert silent.symbols() == set()


def test_a_whole_traded_candle_that_is_not_sent_makes_a_symbol_silent() -> None:
    silent = tracking()
    silent.on_update(candle(0))
    silent.on_history([candle(0)])
    assert silent.symbols() == set()
    silent.on_history([candle(0), candle(1)])
    assert silent.symbols() == {"A/U"}
    silent.on_update(candle(2))
    assert silent.symbols() == set()


def test_a_symbol_without_any_update_is_silent_after_the_first_whole_candle() -> None:
    silent = tracking()
    silent.on_history([candle(at) for at in range(-10, 1)])
    assert silent.symbols() == set()
    silent.on_history([candle(1, "B/U")])
    assert silent.symbols() == {"B/U"}


def test_periods_without_a_trade_do_not_count() -> None:
    silent = tracking()
    silent.on_update(candle(0))
    silent.on_history([candle(at, volume=0.0) for at in range(8)])
    silent.on_history([candle(at)._replace(filled=True) for at in range(8)])
    assert silent.symbols() == set()


def test_of_short_candles_a_short_silence_does_not_count() -> None:
    second = Timeframe.parse("1s")
    silent = tracking(second)
    silent.on_update(candle(0, frame=second))
    silent.on_history([candle(9, frame=second)])
    assert silent.symbols() == set()
    silent.on_history([candle(10, frame=second)])
    assert silent.symbols() == {"A/U"}


def test_a_stall_counts_at_once_until_the_next_update() -> None:
    silent = tracking()
    silent.on_stalled(["A/U", "B/U", "GONE/U"])
    assert silent.symbols() == {"A/U", "B/U"}
    silent.on_update(candle(0))
    assert silent.symbols() == {"B/U"}


@pytest.mark.parametrize(("text", "patience_s"), [("1s", 7.5), ("1m", 67.5), ("1h", 67.5)])
def test_a_lost_connection_counts_after_a_while(text: str, patience_s: float) -> None:
    silent = tracking(Timeframe.parse(text))
    silent.on_connection_lost(NAMES, patience_s)
    assert silent.symbols() == set()
    silent.on_update(candle(0, frame=Timeframe.parse(text))._replace(received_s=patience_s))
    silent.on_connection_lost(NAMES, patience_s + 0.1)
    assert silent.symbols() == {"B/U"}


def test_a_symbol_that_is_removed_and_added_again_is_reset() -> None:
    silent = tracking()
    silent.on_stalled(NAMES)
    silent.on_history([candle(5)])
    silent.set_symbols(["B/U"], START_MS, 0.0)
    assert silent.symbols() == {"B/U"}
    silent.set_symbols(NAMES, START_MS + 6 * MINUTE.ms, 360.0)
    assert silent.symbols() == {"B/U"}
