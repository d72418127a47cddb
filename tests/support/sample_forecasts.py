"""A forecast of one minute, and its JSON written the plain way: what the quick way is held to."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from model.core.candle import Candle, Ohlcv, Timeframe
from model.forecasts.batch import Columns, Common, ForecastBatch
from model.forecasts.forecast import (
    SCHEMA,
    Basis,
    Forecast,
    Latency,
    Market,
    ModelInfo,
    WindowInfo,
)
from model.forecasts.rules import DEFAULT_RULES

MINUTE_MS = 60_000


def forecast_at(close_ms: int, symbol: str = "BTC/USDT", **more: Any) -> Forecast:
    """The forecast after a minute that closed at 100; ``more`` overrides fields."""
    made = Forecast(
        exchange="binance",
        symbol=symbol,
        timeframe="1m",
        seq=close_ms // MINUTE_MS,
        candle_open_ms=close_ms - MINUTE_MS,
        candle_close_ms=close_ms,
        target_close_ms=close_ms + MINUTE_MS,
        valid_until_ms=close_ms + MINUTE_MS,
        published_ms=close_ms + 15,
        last_close=100.0,
        predicted_close=101.0,
        predicted_normalized=0.25,
        predicted_return=0.01,
        interval=None,
        probabilities=None,
        window=WindowInfo(60, 0, 0.0, "exchange_flag"),
        skill=None,
        model=ModelInfo("20261123T020000Z-3f9a1c", "ab" * 32, "log_return"),
        latency=Latency(1.5, 0.2, 0.1),
        late=False,
        basis=Basis(0, DEFAULT_RULES),
    )
    return made._replace(**more)


def batch_of(forecast: Forecast) -> ForecastBatch:
    """The batch that has only this forecast."""
    interval, chances, skill = forecast.interval, forecast.probabilities, forecast.skill
    columns = Columns(
        last_close=forecast.last_close,
        predicted_close=forecast.predicted_close,
        predicted_normalized=forecast.predicted_normalized,
        predicted_return=forecast.predicted_return,
        lower=0.0 if interval is None else interval.lower,
        upper=0.0 if interval is None else interval.upper,
        threshold=0.0 if chances is None else chances.threshold,
        short=0.0 if chances is None else chances.short,
        neutral=0.0 if chances is None else chances.neutral,
        long=0.0 if chances is None else chances.long,
        out_of_range=forecast.window.out_of_range,
        mae_ratio=0.0 if skill is None else skill.mae_ratio,
        stderr=0.0 if skill is None else skill.stderr,
        ready_ms=forecast.latency.ready_ms,
        queue_ms=forecast.latency.queue_ms,
    )
    frame = Timeframe.parse(forecast.timeframe)
    close_ms = forecast.candle_close_ms
    price = forecast.last_close
    ohlcv = Ohlcv(price, price, price, price, 1.0)
    closed = Candle(
        forecast.symbol, forecast.candle_open_ms, close_ms, ohlcv, close_ms, 0.0, "exchange_flag"
    )
    return ForecastBatch(
        market=Market("trader-1", forecast.exchange, (forecast.symbol,), frame),
        common=Common(
            forecast.window.length,
            forecast.basis.rules,
            forecast.latency.inference_ms,
            forecast.published_ms,
        ),
        candles=[closed],
        numbers=np.array([columns]),
        known=[interval is not None],
        learnt=[forecast.basis.learnt],
        models=[forecast.model],
        filled=[forecast.window.filled],
        repaired=[forecast.window.repaired],
        skills=[skill],
        late=[forecast.late],
    )


def document(forecast: Forecast, instance: str = "trader-1") -> dict[str, Any]:
    """The contract's fields in the contract's order."""
    interval, chances, skill = forecast.interval, forecast.probabilities, forecast.skill
    latency = forecast.latency
    return {
        "schema": SCHEMA,
        "instance": instance,
        **dict(zip(forecast._fields[:13], forecast, strict=False)),
        "interval": None if interval is None else interval._asdict(),
        "probabilities": None if chances is None else chances._asdict(),
        "window": forecast.window._asdict(),
        "skill": None if skill is None else skill._asdict(),
        "model": forecast.model.as_json(),
        "latency_ms": {
            "ready": latency.ready_ms,
            "queue": latency.queue_ms,
            "inference": latency.inference_ms,
        },
        "late": forecast.late,
    }


def payload(forecast: Forecast, instance: str = "trader-1") -> bytes:
    return orjson.dumps(document(forecast, instance))
