"""MQTT topics of version 1."""

from __future__ import annotations

from typing import Final

from model.core.symbols import topic_level

ROOT: Final = "candlecast/v1"


def _level(text: str) -> str:
    """One topic level: ``BTC/USDT:USDT`` becomes ``BTC-USDT-USDT``.

    Raises:
        ValueError: empty, or holds a character that MQTT reserves (``+``, ``#``, NUL).
    """
    if not text or any(reserved in text for reserved in "+#\0"):
        msg = f"{text!r} cannot be a level of an MQTT topic: it is empty or holds + # or NUL"
        raise ValueError(msg)
    return topic_level(text)


def prediction_topic(exchange: str, symbol: str, timeframe: str) -> str:
    """Where the forecasts of one symbol are published.

    >>> prediction_topic("binance", "BTC/USDT", "1m")
    'candlecast/v1/binance/BTC-USDT/1m/prediction'
    """
    return f"{ROOT}/{_level(exchange)}/{_level(symbol)}/{_level(timeframe)}/prediction"


def forming_topic(exchange: str, symbol: str, timeframe: str) -> str:
    """Where forecasts from one symbol's forming candle are published."""
    return f"{ROOT}/{_level(exchange)}/{_level(symbol)}/{_level(timeframe)}/forming"


def batch_topic(exchange: str, timeframe: str) -> str:
    """Where the forecasts of one flush are published together."""
    return f"{ROOT}/{_level(exchange)}/{_level(timeframe)}/batch"


def status_topic(instance: str) -> str:
    """Where one daemon says how it is; its will says ``offline``."""
    return f"{ROOT}/status/{_level(instance)}"


def doctor_topic(instance: str) -> str:
    """Where `candlecast doctor` tries whether the broker takes and hands out messages."""
    return f"{ROOT}/doctor/{_level(instance)}"
