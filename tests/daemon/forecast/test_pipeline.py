"""Every published forecast equals that of its whole window and is published once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from model.core.market import MarketKey
from model.history.store import History
from model.registry.bundle import Bundle
from tests.support.pipeline_harness import (
    CAPACITY,
    LOOKBACK,
    MINUTE,
    SYMBOLS,
    T0,
    PipelineHarness,
    SampleMarket,
    check,
    running,
)


@pytest.fixture
async def path(bundle: Bundle, history: History) -> AsyncIterator[PipelineHarness]:
    async with running(PipelineHarness(bundle, history)) as made:
        yield made


async def test_prepared_or_not_the_forecast_is_the_same(
    path: PipelineHarness, bundle: Bundle, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    unprepared = path.sample("candlecast_unprepared_total")
    for end in range(CAPACITY + 1, CAPACITY + 13):
        path.at(end)
        for symbol in SYMBOLS:
            path.close(market, symbol, end - 1)
        await path.scheduler.wait_idle()
    # Those after the warm-up needed one step each, the others their whole window.
    assert path.sample("candlecast_unprepared_total") == unprepared
    assert len(path.published.forecasts) == 3 * 13
    for forecast in path.published.forecasts:
        check(bundle, market, forecast)
    raw = [f["predicted_normalized"] for f in path.published.forecasts]
    assert np.ptp(raw) > 1e-3


async def test_several_closes_before_a_step_still_give_whole_windows(
    path: PipelineHarness, bundle: Bundle, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    dropped = path.count("dropped")
    path.at(CAPACITY + 3)
    for at in range(CAPACITY, CAPACITY + 3):
        path.close(market, "A/U", at)
    await path.scheduler.wait_idle()
    assert path.count("dropped") - dropped == 2
    assert path.published.forecasts[-1]["symbol"] == "A/U"
    assert len(path.published.forecasts) == 4
    check(bundle, market, path.published.forecasts[-1])
    path.at(CAPACITY + 4)
    path.close(market, "A/U", CAPACITY + 3)
    await path.scheduler.wait_idle()
    check(bundle, market, path.published.forecasts[-1])


async def test_a_gap_publishes_nothing_until_it_is_repaired(
    path: PipelineHarness, bundle: Bundle, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    before = len(path.published.forecasts)
    for missing in (CAPACITY + 2, CAPACITY + 3):
        path.at(missing)
        path.close(market, "A/U", missing - 1)
        await asyncio.sleep(0.01)
    assert path.wanted == ["A/U", "A/U"]
    assert len(path.published.forecasts) == before
    path.at(CAPACITY + 1)
    assert path.pipeline.stale_symbols(path.clock.wall_ms()) == ["A/U"]

    path.at(CAPACITY + 3)
    path.pipeline.on_history("A/U", market.span("A/U", CAPACITY - 3, CAPACITY + 1))
    await path.scheduler.wait_idle()
    assert len(path.published.forecasts) == before + 1
    check(bundle, market, path.published.forecasts[-1])
    assert path.published.forecasts[-1]["candle_close_ms"] == T0 + (CAPACITY + 3) * MINUTE.ms
    assert "A/U" not in path.pipeline.stale_symbols(path.clock.wall_ms())
    # Of the three candles that came together only the newest is worth a forecast.
    assert path.sample("candlecast_predictions_skipped_total", reason="gap") == 2


async def test_a_symbol_of_which_a_fifth_of_the_candles_is_forecast_is_stale(
    path: PipelineHarness, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()

    async def history(symbol: str, start: int, end: int) -> bool:
        """Take in some candles that came together; whether the symbol is stale afterwards."""
        path.at(end)
        path.pipeline.on_history(symbol, market.span(symbol, start, end))
        await path.scheduler.wait_idle()
        return symbol in path.pipeline.stale_symbols(path.clock.wall_ms())

    # A single outage no longer counts once it has ended.
    assert not await history("A/U", CAPACITY, CAPACITY + 5)
    stale = [await history("A/U", CAPACITY + at, CAPACITY + at + 5) for at in range(5, 20, 5)]
    assert stale == [True] * 3
    # As many came of this one, but one at a time.
    for at in range(20):
        assert not await history("B/U", CAPACITY + at, CAPACITY + at + 1)
    stale = [await history("A/U", CAPACITY + at, CAPACITY + at + 1) for at in range(20, 24)]
    assert stale == [True, True, False, False]


async def test_the_candle_that_closes_a_gap_is_scored_like_any_other(
    path: PipelineHarness, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    assert path.accuracy.pending == 3
    path.at(CAPACITY + 2)
    path.close(market, "A/U", CAPACITY + 1)
    path.close(market, "A/U", CAPACITY)
    await path.scheduler.wait_idle()
    assert path.published.forecasts[-1]["candle_close_ms"] == T0 + (CAPACITY + 2) * MINUTE.ms
    # The warm-up's forecast of A/U was scored by the candle that came second.
    assert path.scored() == 1
    assert path.accuracy.pending == 3


async def test_a_gap_that_opens_while_a_candle_waits_drops_it(
    path: PipelineHarness, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    before = len(path.published.forecasts)
    path.at(CAPACITY + 3)
    path.close(market, "A/U", CAPACITY)
    path.close(market, "A/U", CAPACITY + 2)
    await asyncio.sleep(0.01)
    assert len(path.published.forecasts) == before
    assert path.count("dropped") == 1


@pytest.mark.parametrize("by_rest", [False, True])
@pytest.mark.parametrize("age", [0, 1, 5, CAPACITY - 1])
async def test_after_a_revision_the_next_forecast_is_that_of_a_fresh_window(
    path: PipelineHarness, bundle: Bundle, market: SampleMarket, age: int, *, by_rest: bool
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    before = list(path.published.forecasts)
    market.revise("A/U", CAPACITY - 1 - age, 1.01)
    if by_rest:
        path.pipeline.on_history("A/U", market.span("A/U", CAPACITY - 1 - age, CAPACITY))
    else:
        path.close(market, "A/U", CAPACITY - 1 - age)
    await asyncio.sleep(0.01)
    # What was published stays, what was revised is counted and written down.
    assert path.published.forecasts == before
    assert path.sample("candlecast_feed_candles_total", verdict="revised") == 1
    await path.recorder.flush()
    stored = await path.recorder.execute(
        lambda h: h.candles(MarketKey.parse("binance", "1m"), "A/U", CAPACITY)
    )
    assert stored[-1 - age].ohlcv == tuple(market.values["A/U"][CAPACITY - 1 - age])
    path.at(CAPACITY + 1)
    for symbol in SYMBOLS:
        path.close(market, symbol, CAPACITY)
    await path.scheduler.wait_idle()
    assert len(path.published.forecasts) == len(before) + 3
    for forecast in path.published.forecasts[len(before) :]:
        check(bundle, market, forecast)


@pytest.mark.parametrize("by_rest", [False, True])
async def test_a_candle_revised_while_it_waits_is_forecast_from_as_revised(
    path: PipelineHarness, bundle: Bundle, market: SampleMarket, *, by_rest: bool
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    path.at(CAPACITY + 1)
    path.close(market, "A/U", CAPACITY)
    market.revise("A/U", CAPACITY, 1.02)
    if by_rest:
        path.pipeline.on_history("A/U", market.span("A/U", CAPACITY, CAPACITY + 1))
    else:
        path.close(market, "A/U", CAPACITY)
    await path.scheduler.wait_idle()
    assert len(path.published.forecasts) == 4
    check(bundle, market, path.published.forecasts[-1])


async def test_a_candle_that_is_too_late_is_skipped(
    path: PipelineHarness, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    path.clock.now_ms += MINUTE.ms
    await path.scheduler.wait_idle()
    assert path.published.forecasts == []
    assert path.sample("candlecast_predictions_skipped_total", reason="expired") == 3
    assert path.accuracy.pending == 0


async def test_a_young_market_is_skipped_until_its_window_is_full(
    path: PipelineHarness, market: SampleMarket
) -> None:
    path.at(CAPACITY)
    path.pipeline.on_history("A/U", market.span("A/U", 2, CAPACITY))
    await path.scheduler.wait_idle()
    for at in (CAPACITY, CAPACITY + 1):
        path.at(at + 1)
        path.close(market, "A/U", at)
        await path.scheduler.wait_idle()
        skipped = path.sample("candlecast_predictions_skipped_total", reason="window")
        assert (skipped, len(path.published.forecasts)) == (1, at - CAPACITY)


async def test_a_repeated_close_changes_nothing(
    path: PipelineHarness, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    for _ in range(3):
        path.close(market, "A/U", CAPACITY - 1)
        path.pipeline.on_history("A/U", market.span("A/U", CAPACITY - 3, CAPACITY))
    await asyncio.sleep(0.01)
    assert len(path.published.forecasts) == 3


async def test_periods_without_a_trade_are_filled_and_reported(
    path: PipelineHarness, market: SampleMarket
) -> None:
    quiet = CAPACITY - 3
    market.values["A/U"][quiet] = [*[market.values["A/U"][quiet - 1, 3]] * 4, 0.0]
    path.at(CAPACITY)
    candles = market.span("A/U", 0, quiet) + market.span("A/U", quiet + 1, CAPACITY)
    path.pipeline.on_history("A/U", candles)
    await path.scheduler.wait_idle()
    (forecast,) = path.published.forecasts
    check(path.bundle, market, forecast)
    assert forecast["window"] == {
        "length": LOOKBACK,
        "filled": 1,
        "out_of_range": forecast["window"]["out_of_range"],
        "final_by": "rest",
        "repaired": 0,
    }


async def test_a_market_without_a_trade_in_the_whole_window_is_stale_and_not_forecast(
    path: PipelineHarness, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    quiet = range(CAPACITY, CAPACITY + LOOKBACK)
    still = market.candle("A/U", CAPACITY - 1)._replace(filled=True, final_by="rest")
    for at in quiet:
        path.at(at + 1)
        open_ms = T0 + at * MINUTE.ms
        flat = still._replace(open_ms=open_ms, close_ms=open_ms + MINUTE.ms)
        path.pipeline.on_history("A/U", [flat])
        for symbol in SYMBOLS[1:]:
            path.close(market, symbol, at)
        await path.scheduler.wait_idle()
    # The exchange sent none of the candles in the window.
    assert path.sample("candlecast_predictions_skipped_total", reason="untraded") == 1
    assert [f["symbol"] for f in path.published.forecasts].count("A/U") == LOOKBACK
    assert path.pipeline.stale_symbols(path.clock.wall_ms()) == ["A/U"]
    path.at(quiet.stop + 1)
    path.close(market, "A/U", quiet.stop)
    await path.scheduler.wait_idle()
    assert path.published.forecasts[-1]["symbol"] == "A/U"
    assert "A/U" not in path.pipeline.stale_symbols(path.clock.wall_ms())


async def restored(route: PipelineHarness) -> None:
    await route.recorder.execute(
        lambda history: route.accuracy.restore(
            history.outcomes(MarketKey.parse("binance", "1m"), 1440)
        )
    )
    route.issuer.learn_published()


async def test_a_restart_never_changes_a_published_forecast(
    bundle: Bundle, market: SampleMarket, history: History
) -> None:
    async with running(PipelineHarness(bundle, history)) as first:
        first.warm(market, CAPACITY)
        await first.scheduler.wait_idle()
    assert len(first.published.forecasts) == 3

    async with running(PipelineHarness(bundle, history)) as second:
        await restored(second)
        second.warm(market, CAPACITY)
        await second.scheduler.wait_idle()
        assert second.published.forecasts == []
        assert second.sample("candlecast_predictions_skipped_total", reason="repeated") == 3
        second.at(CAPACITY + 1)
        for symbol in SYMBOLS:
            second.close(market, symbol, CAPACITY)
        await second.scheduler.wait_idle()
        assert len(second.published.forecasts) == 3
        # The first process's forecast has been scored.
        assert second.scored() == 3


async def test_after_a_restart_every_candle_is_scored_in_any_order_of_arrival(
    bundle: Bundle, market: SampleMarket, history: History
) -> None:
    async with running(PipelineHarness(bundle, history)) as first:
        first.warm(market, CAPACITY)
        await first.scheduler.wait_idle()
    async with running(PipelineHarness(bundle, history)) as second:
        await restored(second)
        # The stream is faster than the history requested before its first candle.
        second.at(CAPACITY + 2)
        for at in (CAPACITY, CAPACITY + 1):
            second.close(market, "A/U", at)
        second.pipeline.on_history("A/U", market.span("A/U", 0, CAPACITY))
        await second.scheduler.wait_idle()
        assert second.scored() == 1


async def test_a_flush_is_also_published_as_a_batch_of_the_same_messages(
    path: PipelineHarness, market: SampleMarket
) -> None:
    path.warm(market, CAPACITY)
    await path.scheduler.wait_idle()
    (batch,) = path.published.batches
    assert batch["predictions"] == path.published.forecasts
    assert (batch["part"], batch["parts"]) == (1, 1)
    assert batch["batch_id"].startswith("tester-")
