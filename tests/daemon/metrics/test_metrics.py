"""Check that every metric is declared, correct, valid text, and rendered in small slices."""

from __future__ import annotations

import asyncio
import doctest
import math
import subprocess

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from daemon.metrics import histogram
from daemon.metrics.forecast_series import OUTCOMES, STAGES
from daemon.metrics.metrics import Metrics
from daemon.runtime.clock import SystemClock
from daemon.scoring.accuracy import MAX_WAIT_CANDLES, Accuracy, score
from model.core.candle import Candle, Ohlcv
from model.forecasts.forecast import (
    Forecast,
    ForecastRow,
    Interval,
    Latency,
    ModelInfo,
)
from tests.support.sample_forecasts import batch_of, forecast_at
from tests.support.servers import program

T0 = 1_776_859_620_000
MINUTE = 60_000
MODEL = ModelInfo("20261123T020000Z-3f9a1c", "ab" * 32, "log_return")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def forecast(slot: int = 0, symbol: str = "BTC/USDT") -> Forecast:
    return forecast_at(T0 + slot * MINUTE, symbol, interval=Interval(0.9, 99.0, 103.0))


def used_metrics() -> Metrics:
    """Metrics in which every series was updated."""
    metrics = Metrics(max_symbols=3)
    accuracy = Accuracy(min_n=2)
    metrics.model.set_served(MODEL)
    metrics.forecasts.latency_budget.set(0.05)
    for stage in STAGES:
        metrics.forecasts.observe_stage(stage, 0.001)
    metrics.forecasts.exchange_delay.observe(0.3)
    metrics.forecasts.batch_size.observe(20)
    for slot in range(3):
        metrics.on_forecasts_ready(batch_of(forecast(slot)))
        metrics.forecasts.set_last_prediction(forecast(slot).published_ms)
        metrics.forecasts.on_published(0.002, 0.004, late=slot == 2)
        accuracy.on_published(batch_of(forecast(slot)))
        open_ms = T0 + slot * MINUTE
        closed = Candle(
            "BTC/USDT", open_ms, open_ms + MINUTE, Ohlcv(100.0, 105.0, 99.0, 102.0, 1.0),
            open_ms + MINUTE, 1.0, "rest",
        )  # fmt: skip
        scores = accuracy.on_candles_closed([closed])
        assert scores is not None
        metrics.accuracy.on_scored(scores)
    metrics.forecasts.count_dropped(2)
    metrics.forecasts.count_skipped("gap", 3)
    metrics.forecasts.count_skipped("gap", 0)
    metrics.forecasts.count_unprepared(1)
    metrics.feed.count_candles("appended")
    metrics.update_accuracy(accuracy)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"candlecast_{name}", labels)


async def test_the_plain_text_lints_clean() -> None:
    text, content_type = await used_metrics().render("text/plain", SystemClock())
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    lint = await asyncio.to_thread(
        subprocess.run, [program("promtool"), "check", "metrics"],
        input=text, capture_output=True, check=False,
    )  # fmt: skip
    assert (lint.stdout + lint.stderr).decode().splitlines() == []
    assert lint.returncode == 0


async def test_sliced_text_equals_the_registry() -> None:
    metrics = Metrics(max_symbols=200)  # more samples in a family than fit into one slice
    for number in range(150):
        metrics.on_forecasts_ready(batch_of(forecast(symbol=f"S{number}/USDT")))
    expected = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    for accept, parse in (("text/plain", parse_text), (OPENMETRICS, parse_openmetrics)):
        text, _ = await metrics.render(accept, SystemClock())
        rendered = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in parse(text.decode())
            for sample in family.samples
        }
        assert rendered == pytest.approx(expected, nan_ok=True)
        assert text.count(b"# TYPE candlecast_symbol_mae_ratio ") == 1


async def test_openmetrics_ends_with_its_end_marker() -> None:
    text, content_type = await used_metrics().render(OPENMETRICS, SystemClock())
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"\n# EOF\n")
    assert text.count(b"# EOF") == 1


async def test_a_late_forecast_has_an_exemplar() -> None:
    metrics = Metrics()
    late = forecast()._replace(latency=Latency(80.0, 0.2, 0.1), late=True)
    metrics.on_forecasts_ready(batch_of(forecast()))
    metrics.on_forecasts_ready(batch_of(late))
    metrics.forecasts.add_exemplar(late)
    text, _ = await metrics.render(OPENMETRICS, SystemClock())
    parse = parse_openmetrics
    pointed_out = [
        (sample.labels["stage"], sample.labels["le"], sample.exemplar)
        for family in parse(text.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None
    ]
    ((stage, bound, exemplar),) = pointed_out
    assert (stage, bound) == ("ready", "0.1")
    assert exemplar.labels == {"symbol": late.symbol, "seq": str(late.seq)}
    assert (exemplar.value, float(exemplar.timestamp)) == (0.08, late.published_ms / 1e3)
    plain, _ = await metrics.render("text/plain", SystemClock())
    assert b" # {" not in plain


async def test_rendering_yields_to_other_tasks() -> None:
    metrics = Metrics(max_symbols=1000)
    for number in range(1000):
        metrics.on_forecasts_ready(batch_of(forecast(symbol=f"S{number}/USDT")))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with asyncio.TaskGroup() as group:
        beside = group.create_task(others())
        await metrics.render("text/plain", SystemClock())
        beside.cancel()
    assert turns >= 3 * 1000 // 64


def test_outcomes_exclude_each_other_and_skips_have_a_reason() -> None:
    metrics = used_metrics()
    outcomes = {
        outcome: value(metrics, "predictions_total", outcome=outcome) for outcome in OUTCOMES
    }
    assert outcomes == {"published": 2.0, "late": 1.0, "dropped": 2.0, "skipped": 3.0}
    assert value(metrics, "predictions_skipped_total", reason="gap") == 3.0


def test_errors_and_hits_are_counted() -> None:
    metrics = used_metrics()
    assert value(metrics, "abs_error_total", forecast="model") == pytest.approx(0.03)
    assert value(metrics, "abs_error_total", forecast="last_value") == pytest.approx(0.06)
    assert value(metrics, "direction_total", result="hit") == 3.0
    assert value(metrics, "interval_total", result="inside") == 3.0
    metrics.accuracy.on_scored(score([ForecastRow.of(forecast())], [98.0]))
    assert value(metrics, "direction_total", result="miss") == 1.0
    assert value(metrics, "interval_total", result="outside") == 1.0
    bare = ForecastRow.of(forecast()._replace(interval=None))
    metrics.accuracy.on_scored(score([bare], [100.0]))
    assert value(metrics, "direction_total", result="miss") == 1.0
    assert value(metrics, "interval_total", result="outside") == 1.0


def test_rolling_figures_are_nan_without_evidence() -> None:
    metrics = Metrics()
    metrics.on_forecasts_ready(batch_of(forecast()))
    metrics.update_accuracy(Accuracy())
    names = ("mae_ratio", "mae_ratio_stderr", "direction_accuracy", "interval_coverage")
    assert all(math.isnan(value(metrics, name) or 0.0) for name in names)
    assert math.isnan(value(metrics, "symbol_mae_ratio", symbol="BTC/USDT") or 0.0)
    metrics = used_metrics()
    assert [value(metrics, name) for name in names] == pytest.approx([0.5, 0.0, 1.0, 1.0], abs=1e-7)
    assert value(metrics, "symbol_mae_ratio", symbol="BTC/USDT") == pytest.approx(0.5)
    assert value(metrics, "symbol_direction_accuracy", symbol="BTC/USDT") == 1.0


def test_the_newest_forecast_is_shown_by_its_time() -> None:
    metrics = Metrics()
    metrics.forecasts.set_last_prediction(T0 + 12)
    assert value(metrics, "last_prediction_timestamp_seconds") == (T0 + 12) / 1000


def test_unscored_forecasts_are_counted_once() -> None:
    metrics, accuracy = Metrics(), Accuracy()
    for slot in range(MAX_WAIT_CANDLES + 2):
        accuracy.on_published(batch_of(forecast(slot)))
        metrics.update_accuracy(accuracy)
    assert value(metrics, "predictions_unscored_total") == 2.0


def test_only_the_first_symbols_have_series_of_their_own() -> None:
    metrics = Metrics(max_symbols=2)
    for symbol in ("A/USDT", "B/USDT", "C/USDT", "A/USDT"):
        metrics.on_forecasts_ready(batch_of(forecast(symbol=symbol)))
    per_symbol = [
        sample.labels["symbol"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "symbol" in sample.labels
    ]
    assert sorted(per_symbol) == ["A/USDT"] * 3 + ["B/USDT"] * 3


def test_a_new_model_replaces_the_old_one() -> None:
    metrics = used_metrics()
    metrics.model.set_served(MODEL._replace(version="next"))
    (family,) = (f for f in metrics.registry.collect() if f.name == "candlecast_model_info")
    assert [sample.labels["version"] for sample in family.samples] == ["next"]


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, "5e-05"), (5e-5, "5e-05"), (0.05, "0.05"), (5.1, "+Inf")]
)
def test_a_latency_falls_into_the_bucket_that_holds_it(seconds: float, bound: str) -> None:
    metrics = Metrics()
    metrics.forecasts.observe_stage("total", seconds)
    buckets = {
        sample.labels["le"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "candlecast_latency_seconds_bucket" and sample.labels["stage"] == "total"
    }
    assert next(le for le, count in buckets.items() if count) == bound
    assert buckets["+Inf"] == 1.0
    bounds = list(buckets)
    assert (bounds[0], bounds[-2]) == ("5e-05", "5.0")


def test_the_examples_run() -> None:
    assert doctest.testmod(histogram) == (0, 3)
