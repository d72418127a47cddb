"""Check that each forecast of a random market equals one computed from scratch."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from model.history.store import History
from model.registry.bundle import Bundle
from tests.support.pipeline_harness import (
    CAPACITY,
    MINUTE,
    ROWS,
    SYMBOLS,
    T0,
    PipelineHarness,
    SampleMarket,
    check,
    running,
)


@pytest.mark.parametrize("seed", range(3))
async def test_every_forecast_equals_one_from_scratch(
    bundle: Bundle, market: SampleMarket, history: History, seed: int
) -> None:
    random = Random(seed)
    async with running(PipelineHarness(bundle, history, max_batch=2)) as path:
        path.warm(market, CAPACITY)
        await path.scheduler.wait_idle()
        checked = 0
        for end in range(CAPACITY + 1, ROWS):
            path.at(end)
            for symbol in SYMBOLS:
                await one_minute(path, market, symbol, end, random)
            if random.random() < 0.6:
                await path.scheduler.wait_idle()
                for forecast in path.published.forecasts[checked:]:
                    check(bundle, market, forecast)
                checked = len(path.published.forecasts)
                revise_something(path, market, end, random)
        await path.scheduler.wait_idle()
        for forecast in path.published.forecasts[checked:]:
            check(bundle, market, forecast)
        ends_ms = [window.next_open_ms or 0 for window in path.table.windows]
        not_forecast = path.count("dropped") + path.count("skipped")
    seen = Counter((f["symbol"], f["seq"]) for f in path.published.forecasts)
    assert max(seen.values()) == 1
    assert len(seen) > 80
    # Every candle since the warm-up has a forecast or is counted as skipped.
    closed = sum((end_ms - T0) // MINUTE.ms - CAPACITY + 1 for end_ms in ends_ms)
    assert closed == len(seen) + not_forecast


async def one_minute(
    path: PipelineHarness, market: SampleMarket, symbol: str, end: int, random: Random
) -> None:
    dice = random.random()
    if dice < 0.1:
        return
    if dice < 0.2:
        path.pipeline.on_history(symbol, market.span(symbol, end - random.randint(2, 9), end))
    else:
        path.close(market, symbol, end - 1)
    if symbol in path.wanted and random.random() < 0.5:
        path.wanted[:] = [name for name in path.wanted if name != symbol]
        until = end - random.randint(0, 1)
        path.pipeline.on_history(symbol, market.span(symbol, end - 20, until))
    if random.random() < 0.2:
        path.close(market, symbol, end - random.randint(1, 4))
    for _ in range(random.randint(0, 3)):
        await asyncio.sleep(0)


def revise_something(path: PipelineHarness, market: SampleMarket, end: int, random: Random) -> None:
    """Change a candle in the window; other candles would not be revisions."""
    symbol = random.choice(SYMBOLS)
    following = path.table.windows[path.table.slots[symbol]].next_open_ms
    assert following is not None
    newest = (following - T0) // MINUTE.ms - 1
    if random.random() < 0.5 and newest < end:
        at = newest - random.randint(0, 10)
        market.revise(symbol, at, 1 + random.uniform(-0.01, 0.01))
        path.close(market, symbol, at)
