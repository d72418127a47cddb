"""A forecast's JSON written the plain way, field by field: what the quick way is held to."""

from __future__ import annotations

from typing import Any

import orjson

from model.forecast import SCHEMA, Forecast


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
