"""Test that published JSON follows the schema and holds only JSON numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from model.core.candle import Candle, FinalBy, Ohlcv, Timeframe
from model.forecasts.batch import COLUMNS, Common, ForecastBatch, JsonWriter
from model.forecasts.forecast import Market, ModelInfo, Skill
from model.forecasts.rules import DEFAULT_RULES, Rules
from tests.support.sample_forecasts import document, payload

MARKET = Market("trader-1", "binance", ("BTC/USDT", "ÄÖ/USDT:USDT"), Timeframe.parse("1m"))
COMMON = Common(60, DEFAULT_RULES, 0.1, 1776859620012)
MODEL = ModelInfo("20261123T020000Z-3f9a1c", "ab" * 32, "log_return")
OPEN_MS = 1776859560000
ROW = {
    "last_close": 78123.4, "predicted_close": 78130.1, "predicted_normalized": 0.0858,
    "predicted_return": 0.0000858, "lower": 78080.0, "upper": 78180.2, "threshold": 0.0002,
    "short": 0.23, "neutral": 0.38, "long": 0.39, "out_of_range": 0.0, "mae_ratio": 0.999,
    "stderr": 0.0012, "ready_ms": 1.1, "queue_ms": 0.2,
}  # fmt: skip
EXPECTED = {
    "schema": 1, "instance": "trader-1", "exchange": "binance", "symbol": "BTC/USDT",
    "timeframe": "1m", "seq": 29614327, "candle_open_ms": 1776859560000,
    "candle_close_ms": 1776859620000, "target_close_ms": 1776859680000,
    "valid_until_ms": 1776859680000, "published_ms": 1776859620012, "last_close": 78123.4,
    "predicted_close": 78130.1, "predicted_normalized": 0.0858, "predicted_return": 0.0000858,
    "interval": {"level": 0.9, "lower": 78080.0, "upper": 78180.2},
    "probabilities": {"threshold": 0.0002, "short": 0.23, "neutral": 0.38, "long": 0.39},
    "window": {"length": 60, "filled": 0, "out_of_range": 0.0, "final_by": "exchange_flag",
               "repaired": 0},
    "skill": {"mae_ratio": 0.999, "stderr": 0.0012, "n": 1440},
    "model": {"version": "20261123T020000Z-3f9a1c", "sha256": "ab" * 32, "target": "log_return"},
    "latency_ms": {"ready": 1.1, "queue": 0.2, "inference": 0.1}, "late": False,
}  # fmt: skip


def candle(symbol: str, open_ms: int = OPEN_MS, final_by: FinalBy = "exchange_flag") -> Candle:
    close = Ohlcv(1.0, 1.0, 1.0, 1.0, 0.0)
    return Candle(symbol, open_ms, open_ms + 60_000, close, open_ms + 60_005, 1.0, final_by)


def forecasts(*, evidence: bool = True, late: bool = False, **changes: float) -> ForecastBatch:
    numbers = ROW | changes
    if not evidence:
        numbers |= dict.fromkeys(COLUMNS[4:10], 0.0) | {"mae_ratio": 0.0, "stderr": 0.0}
    skill = Skill(numbers["mae_ratio"], numbers["stderr"], 1440) if evidence else None
    return ForecastBatch(
        MARKET,
        COMMON,
        [candle("BTC/USDT")],
        np.array([list(numbers.values())]),
        [evidence],
        [1440],
        [MODEL],
        [0],
        [0],
        [skill],
        [late],
    )


def parsed(batch: ForecastBatch) -> dict[str, Any]:
    (text,) = JsonWriter(MARKET).write(batch)
    decoded: dict[str, Any] = json.loads(text)
    return decoded


@pytest.fixture(scope="module")
def schema(repository: Path) -> Draft202012Validator:
    of = json.loads((repository / "docs" / "prediction.schema.json").read_text())
    Draft202012Validator.check_schema(of)
    return Draft202012Validator(of)


def test_the_fields_and_their_order_are_the_contract() -> None:
    (text,) = JsonWriter(MARKET).write(forecasts())
    assert json.dumps(json.loads(text)) == json.dumps(EXPECTED)
    assert b" " not in text


@pytest.mark.parametrize("evidence", [True, False])
def test_it_fits_the_schema(schema: Draft202012Validator, *, evidence: bool) -> None:
    schema.validate(parsed(forecasts(evidence=evidence)))


@pytest.mark.parametrize("field", list(EXPECTED))
def test_the_schema_requires_every_field(schema: Draft202012Validator, field: str) -> None:
    incomplete = parsed(forecasts())
    del incomplete[field]
    with pytest.raises(ValidationError, match=field):
        schema.validate(incomplete)


def test_without_evidence_there_is_null() -> None:
    bare = parsed(forecasts(evidence=False, late=True))
    assert [bare[f] for f in ("interval", "probabilities", "skill")] == [None] * 3
    assert bare["late"] is True


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", COLUMNS)
def test_values_that_are_not_finite_are_refused(column: str, number: float) -> None:
    with pytest.raises(ValueError, match=f"{column} is not finite"):
        forecasts(**cast("Any", {column: number}))


def test_an_empty_batch_writes_nothing() -> None:
    none = ForecastBatch(
        MARKET, COMMON, [], np.empty((0, len(COLUMNS))), [], [], [], [], [], [], []
    )
    assert (JsonWriter(MARKET).write(none), list(none), len(none)) == ([], [], 0)


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(data=st.data())
def test_forecasts_of_a_batch_are_written_as_single_ones(data: st.DataObject) -> None:
    k = data.draw(st.integers(1, 5))

    def draw(each: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(each, min_size=k, max_size=k))

    numbers = np.array(draw(st.lists(finite, min_size=15, max_size=15)))
    known = draw(st.booleans())
    counts = draw(st.none() | st.integers(1, 10_000))
    skills = [
        None if n is None else Skill(float(row[11]), float(row[12]), n)
        for n, row in zip(counts, numbers, strict=True)
    ]
    candles = [
        candle(symbol, OPEN_MS + 60_000 * step, final_by)
        for symbol, step, final_by in zip(
            draw(st.sampled_from(MARKET.symbols)),
            draw(st.integers(-2, 2)),
            draw(st.sampled_from(("exchange_flag", "successor", "rest"))),
            strict=True,
        )
    ]
    models = [MODEL._replace(fitted_on_warmup=fitted) for fitted in draw(st.booleans())]
    rules = Rules(level=data.draw(st.floats(0.5, 0.99)))
    common = COMMON._replace(rules=rules, inference_ms=data.draw(finite))
    batch = ForecastBatch(
        MARKET, common, candles, numbers, known, draw(st.integers(0, 9)), models,
        draw(st.integers(0, 60)), draw(st.integers(0, 60)), skills, draw(st.booleans()),
    )  # fmt: skip
    texts = JsonWriter(MARKET).write(batch)
    assert texts == [payload(forecast) for forecast in batch]
    for row, text in zip(numbers, texts, strict=True):
        decoded = json.loads(text)
        prices = [decoded[name] for name in COLUMNS[:4]]
        assert prices == row[:4].tolist(), "every number comes back to the last bit"
    assert [f.symbol for f in batch] == [c.symbol for c in candles]
    assert document(next(iter(batch)))["schema"] == 1
