"""A failing model publishes no forecast, and its symbols are stale."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from daemon.control.standby import StandbyModel
from model.history.store import History
from model.inference.engine import Engine
from model.registry.bundle import Bundle
from model.serving import ServedModel
from tests.support.pipeline_harness import (
    CAPACITY,
    LOOKBACK,
    MINUTE,
    SYMBOLS,
    PipelineHarness,
    SampleMarket,
    running,
)
from tests.support.tiny_models import shifted


def served(bundle: Bundle, symbols: list[str], **change: float) -> ServedModel:
    scalers = shifted(bundle.scalers, symbols, **change)
    engine = Engine(bundle.onnx, len(SYMBOLS), LOOKBACK, len(bundle.manifest.features))
    return ServedModel(replace(bundle, scalers=scalers), SYMBOLS, engine)


def skipped(route: PipelineHarness) -> float:
    return route.sample("candlecast_predictions_skipped_total", reason="not_a_price")


@pytest.mark.parametrize("change", [{"target_offset": 20.0}, {"target_scale": 1e9}])
async def test_forecasts_of_a_symbol_that_fails_are_withheld(
    bundle: Bundle,
    history: History,
    market: SampleMarket,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, float],
) -> None:
    model = served(bundle, ["B/U"], **change)
    async with running(PipelineHarness(bundle, history, served=model)) as route:
        route.warm(market, CAPACITY)
        await route.scheduler.wait_idle()
        now_ms = route.clock.wall_ms()
        assert {f["symbol"] for f in route.published.forecasts} == {"A/U", "C/U"}
        assert skipped(route) == 1
        assert route.pipeline.stale_symbols(now_ms) == ["B/U"]
        assert list(route.pipeline.withheld()) == ["B/U"]
        (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert line.startswith(f"model {bundle.version}: the forecasts of 1 of 3 symbols")
        assert line.endswith("roll back: candlecast models rollback")
        # It is tried again with every candle and logged once.
        route.at(CAPACITY + 1)
        for symbol in SYMBOLS:
            route.close(market, symbol, CAPACITY)
        await route.scheduler.wait_idle()
        assert skipped(route) == 2
        assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
        # The model works again, as after a rollback.
        cured = served(bundle, [])
        route.pipeline.replace_model(cured, route.table.windows, [-1] * 3)
        assert route.pipeline.stale_symbols(route.clock.wall_ms()) == []
        route.at(CAPACITY + 2)
        route.close(market, "B/U", CAPACITY + 1)
        await route.scheduler.wait_idle()
        assert route.published.forecasts[-1]["symbol"] == "B/U"
        assert route.pipeline.withheld() == {}


async def test_a_symbol_whose_forecasts_cease_to_be_prices_is_stale(
    bundle: Bundle, history: History, market: SampleMarket
) -> None:
    model = served(bundle, [])
    async with running(PipelineHarness(bundle, history, served=model)) as route:
        route.warm(market, CAPACITY)
        await route.scheduler.wait_idle()
        offsets: Any = model._scaler._offset  # noqa: SLF001 - as a number of one symbol may do
        offsets[2], sound = np.nan, offsets[2]
        route.at(CAPACITY + 1)
        for symbol in SYMBOLS:
            route.close(market, symbol, CAPACITY)
        await route.scheduler.wait_idle()
        assert len(route.published.forecasts) == 5
        assert route.pipeline.stale_symbols(route.clock.wall_ms()) == ["C/U"]
        assert route.pipeline.withheld() == {"C/U": "is not a price"}
        offsets[2] = sound
        route.at(CAPACITY + 2)
        for symbol in SYMBOLS:
            route.close(market, symbol, CAPACITY + 1)
        await route.scheduler.wait_idle()
        assert len(route.published.forecasts) == 8
        assert route.pipeline.stale_symbols(route.clock.wall_ms()) == []


async def test_a_start_checks_every_whole_window_before_forecasting(
    bundle: Bundle, history: History, market: SampleMarket
) -> None:
    route = PipelineHarness(
        bundle, history, served=served(bundle, ["A/U", "C/U"], target_offset=20.0)
    )
    for symbol in ("A/U", "B/U"):
        window = next(w for w in route.table.windows if w.symbol == symbol)
        window.merge_history(market.span(symbol, 0, CAPACITY))
    found = await route.pipeline.check_model()
    # C/U has no whole window yet.
    assert list(found) == [0]
    assert "times away from the last close" in found[0]
    assert route.published.forecasts == []


async def test_a_symbol_not_yet_checked_with_the_new_model_is_checked_before_its_forecast(
    bundle: Bundle, history: History, market: SampleMarket
) -> None:
    async with running(PipelineHarness(bundle, history)) as route:
        route.warm(market, CAPACITY)
        await route.scheduler.wait_idle()
        before = len(route.published.forecasts)
        route.at(CAPACITY + 2)
        route.close(market, "A/U", CAPACITY + 1)
        pipeline, absurd = route.pipeline, served(bundle, ["A/U"], target_offset=20.0)
        standby = StandbyModel(absurd, route.table.windows, route.scheduler, route.clock, MINUTE)
        await standby.synchronise()
        # The window of A/U is not whole.
        await standby.check_forecasts()
        assert standby.checked == [1, 2]
        pipeline.replace_model(absurd, route.table.windows, standby.revisions(), standby.checked)
        for symbol in SYMBOLS:
            pipeline.on_history(symbol, market.span(symbol, CAPACITY - 3, CAPACITY + 2))
        await route.scheduler.wait_idle()
        assert {f["symbol"] for f in route.published.forecasts[before:]} == {"B/U", "C/U"}
        assert pipeline.stale_symbols(route.clock.wall_ms()) == ["A/U"]
