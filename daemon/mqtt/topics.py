"""Build the names of MQTT topics, version 1."""

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
    """Return the topic of one symbol's forecasts.

    >>> prediction_topic("binance", "BTC/USDT", "1m")
    'candlecast/v1/binance/BTC-USDT/1m/prediction'
    """
    return f"{ROOT}/{_level(exchange)}/{_level(symbol)}/{_level(timeframe)}/prediction"


def forming_topic(exchange: str, symbol: str, timeframe: str) -> str:
    """Return the topic of forecasts from one symbol's forming candle."""
    return f"{ROOT}/{_level(exchange)}/{_level(symbol)}/{_level(timeframe)}/forming"


def batch_topic(exchange: str, timeframe: str) -> str:
    """Return the topic that carries the forecasts of one flush in one message."""
    return f"{ROOT}/{_level(exchange)}/{_level(timeframe)}/batch"


def status_topic(instance: str) -> str:
    """Return the topic of one daemon's state; its will is ``offline``."""
    return f"{ROOT}/status/{_level(instance)}"


def doctor_topic(instance: str) -> str:
    """Return the topic on which `candlecast doctor` tests the broker."""
    return f"{ROOT}/doctor/{_level(instance)}"
