"""Withhold closing messages: REST supplies each candle in time, or the status reports it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.fault_harness import FaultHarness
from tests.sandbox.scaled import second_playback


def seqs(harness: FaultHarness, since: int) -> dict[str, set[int]]:
    """Which candles of each symbol were forecast after publication ``since``."""
    found: dict[str, set[int]] = {symbol: set() for symbol in harness.playback.symbols}
    for published in harness.published[since:]:
        forecast = json.loads(published.payload)
        found[forecast["symbol"]].add(forecast["seq"])
    return found


def stale(harness: FaultHarness) -> float | None:
    assert harness.app is not None
    return harness.app.metrics.registry.get_sample_value("candlecast_feed_stale_symbols")


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_candles_of_a_second_are_brought_by_rest_within_the_second(tmp_path: Path) -> None:
    harness = FaultHarness(tmp_path, second_playback(2), 1.0)
    async with harness.running():
        await harness.until(lambda: all(len(found) > 2 for found in seqs(harness, 0).values()))
        harness.exchange.faults.unclosed = True
        await harness.clock.sleep(1.5)
        since = len(harness.published)
        await harness.until(lambda: all(len(found) >= 8 for found in seqs(harness, since).values()))
        for found in seqs(harness, since).values():
            # A busy machine may miss one.
            assert max(found) - min(found) + 1 - len(found) <= 1
        assert stale(harness) == 0
        documents = [json.loads(p.payload) for p in harness.published[since:]]
        assert {forecast["window"]["final_by"] for forecast in documents} == {"rest"}
        assert all(forecast["published_ms"] < forecast["valid_until_ms"] for forecast in documents)


@pytest.mark.may_block("opening a model and a broker takes place before there is a deadline")
async def test_while_few_candles_are_forecast_their_symbols_are_stale(tmp_path: Path) -> None:
    harness = FaultHarness(tmp_path, second_playback(2), 1.0)
    async with harness.running():
        await harness.until(lambda: all(len(found) > 2 for found in seqs(harness, 0).values()))
        assert stale(harness) == 0
        harness.exchange.faults.unclosed = True
        # Each answer takes longer than three candles: most of them have a successor by then.
        harness.ways["rest"].impairment.delay_s = 3.0
        await harness.until(lambda: stale(harness) == 2)
        harness.ways["rest"].impairment.delay_s = 0.0
        harness.exchange.faults.unclosed = False
        await harness.until(lambda: stale(harness) == 0)
