"""Silent symbols are probed in time, and only missing trades count as a stall."""

from __future__ import annotations

from daemon.candles.history_page import CandleVolume
from daemon.feed.liveness import LivenessMonitor, expected_interval_s

OPEN = 1_700_000_040_000
MINUTE = 60_000


def monitoring(*symbols: str) -> LivenessMonitor:
    return LivenessMonitor(symbols or ("A/B",), 45.0, 0.0)


def test_updates_are_expected_at_least_every_45_seconds() -> None:
    found = [expected_interval_s(ms) for ms in (1_000, 15_000, 60_000, 3_600_000)]
    assert found == [5.0, 15.0, 45.0, 45.0]


def test_a_symbol_with_updates_is_not_probed() -> None:
    monitor = monitoring()
    for now_s in range(0, 500, 60):
        monitor.on_update("A/B", OPEN, now_s)
        assert monitor.symbols_to_probe(now_s + 59.9) == []
    assert monitor.symbols_to_probe(480 + 67.5) == ["A/B"]


def test_a_later_traded_candle_that_the_stream_has_not_sent_is_a_stall() -> None:
    monitor = monitoring()
    monitor.on_update("A/B", OPEN, 0.0)
    assert monitor.on_probe("A/B", CandleVolume(OPEN + MINUTE, 0.1), 67.5)


def test_a_market_without_trades_is_not_a_stall() -> None:
    monitor = monitoring()
    monitor.on_update("A/B", OPEN, 0.0)
    asked = 0
    for now_s in range(1_000):
        if monitor.symbols_to_probe(float(now_s)):
            asked += 1
            assert not monitor.on_probe("A/B", CandleVolume(OPEN, 5.0), float(now_s))
    assert 10 <= asked <= 16


def test_in_a_long_candle_growing_volume_between_two_probes_is_a_stall() -> None:
    monitor = monitoring()
    monitor.on_update("A/B", OPEN, 0.0)
    assert not monitor.on_probe("A/B", CandleVolume(OPEN, 5.0), 67.5)
    assert monitor.symbols_to_probe(80.0) == []
    assert monitor.symbols_to_probe(67.5 + 22.5) == ["A/B"]
    assert monitor.on_probe("A/B", CandleVolume(OPEN, 5.1), 90.0)


def test_a_stream_without_any_update_is_found_within_one_and_a_half_intervals() -> None:
    monitor = monitoring()
    assert monitor.symbols_to_probe(22.5) == ["A/B"]
    assert not monitor.on_probe("A/B", CandleVolume(OPEN, 5.0), 22.5)
    assert monitor.symbols_to_probe(45.0) == ["A/B"]
    assert monitor.on_probe("A/B", CandleVolume(OPEN, 5.1), 45.0)


def test_a_failed_probe_is_not_a_stall() -> None:
    monitor = monitoring()
    monitor.on_update("A/B", OPEN, 0.0)
    assert not monitor.on_probe("A/B", None, 67.5)
    assert monitor.symbols_to_probe(90.0) == ["A/B"]


def test_recently_updated_symbols_are_probed_first_and_all_are_probed() -> None:
    names = [f"S{number}/USDT" for number in range(9)]
    monitor = monitoring(*names)
    for number, name in enumerate(names):
        monitor.on_update(name, OPEN, float(number))
    asked: list[str] = []
    for now_s in (100.0, 104.0, 108.0, 112.0, 116.0):
        for symbol in monitor.symbols_to_probe(now_s):
            asked.append(symbol)
            monitor.on_probe(symbol, CandleVolume(OPEN, 1.0), now_s)
    assert asked == names[::-1]
