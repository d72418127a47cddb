"""Candles without a trade, without volume or repaired, through the whole pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from model.core.market import MarketKey
from model.history.store import History
from model.registry.bundle import Bundle
from tests.support.pipeline_harness import (
    CAPACITY,
    LOOKBACK,
    SYMBOLS,
    PipelineHarness,
    SampleMarket,
    running,
)


@pytest.fixture
async def path(bundle: Bundle, history: History) -> AsyncIterator[PipelineHarness]:
    async with running(PipelineHarness(bundle, history)) as made:
        yield made


@pytest.mark.parametrize("by_rest", [False, True])
async def test_a_market_with_received_empty_candles_becomes_stale_too(
    path: PipelineHarness, market: SampleMarket, *, by_rest: bool
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    close = market.values["A/U"][CAPACITY - 1, 3]
    for at in range(CAPACITY, CAPACITY + LOOKBACK):
        market.values["A/U"][at] = [close, close, close, close, 0.0]
        path.at(at + 1)
        if by_rest:
            path.pipeline.on_history("A/U", market.span("A/U", at, at + 1))
        else:
            path.close(market, "A/U", at)
        await path.scheduler.wait_idle()
    filled = [f["window"]["filled"] for f in path.published.forecasts if f["symbol"] == "A/U"]
    assert filled == list(range(LOOKBACK))
    assert path.sample("candlecast_predictions_skipped_total", reason="untraded") == 1
    assert "A/U" in path.pipeline.stale_symbols(path.clock.wall_ms())


async def test_an_exchange_without_volumes_is_forecast_while_prices_move(
    path: PipelineHarness, market: SampleMarket
) -> None:
    market.values["A/U"][:, 4] = 0.0
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    for at in range(CAPACITY, CAPACITY + LOOKBACK):
        # A single price in each candle, as where candles are short.
        market.values["A/U"][at, :4] = market.values["A/U"][at, 3]
        path.at(at + 1)
        for symbol in SYMBOLS:
            path.close(market, symbol, at)
        await path.scheduler.wait_idle()
    filled_counts = [
        f["window"]["filled"] for f in path.published.forecasts if f["symbol"] == "A/U"
    ]
    assert filled_counts == [0] * (1 + LOOKBACK)
    assert path.pipeline.stale_symbols(path.clock.wall_ms()) == []


async def test_a_repaired_candle_is_counted_published_and_stored(
    path: PipelineHarness, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    path.at(CAPACITY + 1)
    (odd,) = market.span("A/U", CAPACITY, CAPACITY + 1)
    path.pipeline.on_history("A/U", [odd._replace(repaired=True)])
    await path.scheduler.wait_idle()
    assert path.published.forecasts[-1]["window"]["repaired"] == 1
    assert path.sample("candlecast_feed_repaired_total") == 1
    await path.recorder.flush()
    (stored,) = await path.recorder.execute(
        lambda h: h.candles(MarketKey.parse("binance", "1m"), "A/U", 1)
    )
    assert (stored.repaired, stored.ohlcv) == (True, odd.ohlcv)
