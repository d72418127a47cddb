"""Candle CSV files: what they are called and what stands in them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from model.candle import Ohlcv

HEADER: Final = "timestamp,open,high,low,close,volume,datetime"
"""Opening time in Unix milliseconds, prices, volume, and the same time for people (UTC)."""


def symbol_name(symbol: str) -> str:
    """A ccxt symbol as file names and topics spell it: ``BTC/USDT:USDT`` → ``BTC-USDT-USDT``."""
    return symbol.replace("/", "-").replace(":", "-")


def csv_name(symbol: str, timeframe: str, first_ms: int, last_ms: int) -> str:
    """``{SYMBOL}_{TIMEFRAME}_{START}_to_{END}.csv``, e.g. ``BTC-USDT_1m_20260801_to_20261030.csv``.

    Args:
        symbol: ccxt symbol.
        timeframe: ccxt timeframe.
        first_ms: opening time of the first candle, Unix milliseconds.
        last_ms: opening time of the last candle, Unix milliseconds.
    """
    start, end = (f"{datetime.fromtimestamp(ms / 1000, UTC):%Y%m%d}" for ms in (first_ms, last_ms))
    return f"{symbol_name(symbol)}_{timeframe}_{start}_to_{end}.csv"


def csv_row(open_ms: int, ohlcv: Ohlcv) -> str:
    """One line under :data:`HEADER`, without its end; floats keep every bit."""
    prices = ",".join(repr(value) for value in ohlcv)
    return f"{open_ms},{prices},{datetime.fromtimestamp(open_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
