"""Withhold closing messages: REST supplies each candle in time, or the status reports it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.fault_harness import Arena
from tests.sandbox.scaled import second_playback


def seqs(arena: Arena, since: int) -> dict[str, set[int]]:
    """Which candles of each symbol were forecast after publication ``since``."""
    found: dict[str, set[int]] = {symbol: set() for symbol in arena.playback.symbols}
    for published in arena.published[since:]:
        forecast = json.loads(published.payload)
        found[forecast["symbol"]].add(forecast["seq"])
    return found


def stale(arena: Arena) -> float | None:
    assert arena.app is not None
    return arena.app.metrics.registry.get_sample_value("candlecast_feed_stale_symbols")


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_candles_of_a_second_are_brought_by_rest_within_the_second(tmp_path: Path) -> None:
    arena = Arena(tmp_path, second_playback(2), 1.0)
    async with arena.running():
        await arena.until(lambda: all(len(found) > 2 for found in seqs(arena, 0).values()))
        arena.exchange.faults.unclosed = True
        await arena.clock.sleep(1.5)
        since = len(arena.published)
        await arena.until(lambda: all(len(found) >= 8 for found in seqs(arena, since).values()))
        for found in seqs(arena, since).values():
            # A busy machine may cost one.
            assert max(found) - min(found) + 1 - len(found) <= 1
        assert stale(arena) == 0
        told = [json.loads(p.payload) for p in arena.published[since:]]
        assert {forecast["window"]["final_by"] for forecast in told} == {"rest"}
        assert all(forecast["published_ms"] < forecast["valid_until_ms"] for forecast in told)


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_while_few_candles_are_forecast_their_symbols_are_stale(tmp_path: Path) -> None:
    arena = Arena(tmp_path, second_playback(2), 1.0)
    async with arena.running():
        await arena.until(lambda: all(len(found) > 2 for found in seqs(arena, 0).values()))
        assert stale(arena) == 0
        arena.exchange.faults.unclosed = True
        # Each answer takes longer than three candles: most of them have a successor by then.
        arena.ways["rest"].weather.delay_s = 3.0
        await arena.until(lambda: stale(arena) == 2)
        arena.ways["rest"].weather.delay_s = 0.0
        arena.exchange.faults.unclosed = False
        await arena.until(lambda: stale(arena) == 0)
