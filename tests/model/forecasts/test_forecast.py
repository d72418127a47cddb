"""The fields that a single forecast passes on."""

from __future__ import annotations

import json

from model.forecasts.forecast import (
    Basis,
    Forecast,
    ForecastRow,
    Interval,
    Latency,
    ModelInfo,
    Probabilities,
    Skill,
    WindowInfo,
    batch_payload,
)
from model.forecasts.rules import DEFAULT_RULES
from tests.support.sample_forecasts import payload

FULL = Forecast(
    exchange="binance",
    symbol="BTC/USDT",
    timeframe="1m",
    seq=29614327,
    candle_open_ms=1776859560000,
    candle_close_ms=1776859620000,
    target_close_ms=1776859680000,
    valid_until_ms=1776859680000,
    published_ms=1776859620012,
    last_close=78123.4,
    predicted_close=78130.1,
    predicted_normalized=0.0858,
    predicted_return=0.0000858,
    interval=Interval(0.9, 78080.0, 78180.2),
    probabilities=Probabilities(0.0002, 0.23, 0.38, 0.39),
    window=WindowInfo(60, 0, 0.0, "exchange_flag"),
    skill=Skill(0.999, 0.0012, 1440),
    model=ModelInfo("20261123T020000Z-3f9a1c", "ab" * 32, "log_return"),
    latency=Latency(1.1, 0.2, 0.1),
    late=False,
    basis=Basis(0, DEFAULT_RULES),
)
BARE = FULL._replace(interval=None, probabilities=None, skill=None, late=True)


def test_the_identity_is_what_is_forecast() -> None:
    assert FULL.identity == ("binance", "BTC/USDT", "1m", 1776859680000)
    assert BARE.identity == FULL.identity


def test_a_row_has_the_fields_needed_for_scoring() -> None:
    times = (1776859620000, 1776859680000)
    assert ForecastRow.of(FULL) == ("BTC/USDT", *times, 78123.4, 78130.1, 78080.0, 78180.2)
    assert ForecastRow.of(BARE)[-2:] == (None, None)


def test_a_batch_is_the_same_documents_side_by_side() -> None:
    text = batch_payload("trader-1-5-7", (2, 3), [payload(FULL), payload(BARE)])
    assert json.loads(text) == {
        "schema": 1,
        "batch_id": "trader-1-5-7",
        "part": 2,
        "parts": 3,
        "predictions": [json.loads(payload(FULL)), json.loads(payload(BARE))],
    }
