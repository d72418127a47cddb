"""Decode and validate published forecasts and states. No I/O.

Messages are checked by hand: any client may publish to the broker, and only the fields that are
shown matter, so that forecasts of a later version stay readable.
"""

from __future__ import annotations

import math
from typing import Any, Final

import orjson

_MAX_BYTES: Final = 65_536
_MAX_TEXT_CHARS: Final = 80

_TEXT_FIELDS: Final = ("symbol", "exchange", "timeframe")
_NUMBER_FIELDS: Final = ("seq", "candle_close_ms", "target_close_ms", "valid_until_ms")
_PRICE_FIELDS: Final = ("last_close", "predicted_close")


def parse_forecast(payload: bytes) -> dict[str, Any] | None:
    """Decode a published forecast; None if it cannot be shown."""
    message = _parse_object(payload)
    if message is None:
        return None
    interval, latency = message.get("interval"), message.get("latency_ms")
    is_valid = (
        all(_is_text(message.get(name)) for name in _TEXT_FIELDS)
        and all(_is_number(message.get(name)) for name in (*_NUMBER_FIELDS, "predicted_return"))
        and all(_is_price(message.get(name)) for name in _PRICE_FIELDS)
        and "interval" in message
        and (interval is None or _is_interval(interval))
        and isinstance(latency, dict)
        and _is_number(latency.get("ready"))
        and isinstance(message.get("late"), bool)
    )
    return message if is_valid else None


def parse_status(payload: bytes) -> dict[str, Any] | None:
    """Decode the status of an instance; None if it cannot be shown."""
    status = _parse_object(payload)
    if status is None or not all(_is_text(status.get(name)) for name in ("instance", "state")):
        return None
    return status


def _parse_object(payload: bytes) -> dict[str, Any] | None:
    if len(payload) > _MAX_BYTES:
        return None
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _is_text(value: object) -> bool:
    # Control characters would reach the terminal.
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MAX_TEXT_CHARS


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_price(value: object) -> bool:
    return _is_number(value) and isinstance(value, int | float) and value > 0


def _is_interval(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_price(value.get(bound)) for bound in ("lower", "upper")
    )
