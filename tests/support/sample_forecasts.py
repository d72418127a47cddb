"""A forecast of one minute, and its JSON written the plain way: what the quick way is held to."""

from __future__ import annotations

from typing import Any

import orjson

from model.forecasts.forecast import SCHEMA, Basis, Forecast, Latency, ModelInfo, WindowInfo
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
