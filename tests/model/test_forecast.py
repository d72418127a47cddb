"""What is published is the contract's JSON, and never a number that JSON does not have."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from model.forecast import (
    Forecast,
    ForecastRow,
    Interval,
    Latency,
    ModelInfo,
    Probabilities,
    Skill,
    WindowInfo,
    payload,
)

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
)
BARE = FULL._replace(interval=None, probabilities=None, skill=None, late=True)

EXPECTED = {
    "schema": 1, "instance": "trader-1", "exchange": "binance", "symbol": "BTC/USDT",
    "timeframe": "1m", "seq": 29614327, "candle_open_ms": 1776859560000,
    "candle_close_ms": 1776859620000, "target_close_ms": 1776859680000,
    "valid_until_ms": 1776859680000, "published_ms": 1776859620012, "last_close": 78123.4,
    "predicted_close": 78130.1, "predicted_normalized": 0.0858, "predicted_return": 0.0000858,
    "interval": {"level": 0.9, "lower": 78080.0, "upper": 78180.2},
    "probabilities": {"threshold": 0.0002, "short": 0.23, "neutral": 0.38, "long": 0.39},
    "window": {"length": 60, "filled": 0, "out_of_range": 0.0, "final_by": "exchange_flag"},
    "skill": {"mae_ratio": 0.999, "stderr": 0.0012, "n": 1440},
    "model": {"version": "20261123T020000Z-3f9a1c", "sha256": "ab" * 32, "target": "log_return"},
    "latency_ms": {"ready": 1.1, "queue": 0.2, "inference": 0.1}, "late": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def schema(repository: Path) -> Draft202012Validator:
    document = json.loads((repository / "docs" / "prediction.schema.json").read_text())
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def test_the_fields_and_their_order_are_the_contract() -> None:
    text = payload(FULL, "trader-1").decode()
    assert json.dumps(json.loads(text)) == json.dumps(EXPECTED)
    assert " " not in text


@pytest.mark.parametrize("forecast", [FULL, BARE])
def test_it_fits_the_schema(schema: Draft202012Validator, forecast: Forecast) -> None:
    schema.validate(json.loads(payload(forecast, "trader-1")))


@pytest.mark.parametrize("field", list(EXPECTED))
def test_the_schema_misses_every_field_that_is_missing(
    schema: Draft202012Validator, field: str
) -> None:
    document: dict[str, Any] = json.loads(payload(FULL, "trader-1"))
    del document[field]
    with pytest.raises(ValidationError, match=field):
        schema.validate(document)


def test_without_evidence_there_is_null() -> None:
    document = json.loads(payload(BARE, "trader-1"))
    assert [document[f] for f in ("interval", "probabilities", "skill")] == [None] * 3
    assert document["late"] is True


def _with(path: tuple[str, ...], number: float) -> Forecast:
    field, *inner = path
    changed: Any = getattr(FULL, field)._replace(**{inner[0]: number}) if inner else number
    return FULL._replace(**{field: changed})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "path",
    [
        ("last_close",), ("predicted_close",), ("predicted_normalized",), ("predicted_return",),
        ("interval", "lower"), ("interval", "upper"), ("probabilities", "long"),
        ("window", "out_of_range"), ("skill", "mae_ratio"), ("skill", "stderr"),
        ("latency", "ready_ms"),
    ],
)  # fmt: skip
def test_what_is_not_finite_is_refused(path: tuple[str, ...], number: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        payload(_with(path, number), "trader-1")


@given(close=st.floats(1e-12, 1e12), predicted=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_to_the_last_bit(close: float, predicted: float) -> None:
    forecast = FULL._replace(last_close=close, predicted_close=predicted)
    document = json.loads(payload(forecast, "trader-1"))
    assert (document["last_close"], document["predicted_close"]) == (close, predicted)


def test_the_identity_is_what_is_forecast() -> None:
    assert FULL.identity == ("binance", "BTC/USDT", "1m", 1776859680000)
    assert BARE.identity == FULL.identity


def test_a_row_keeps_what_scoring_needs() -> None:
    times = (1776859620000, 1776859680000)
    assert ForecastRow.of(FULL) == ("BTC/USDT", *times, 78123.4, 78130.1, 78080.0, 78180.2)
    assert ForecastRow.of(BARE)[-2:] == (None, None)
