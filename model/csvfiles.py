"""Candle CSV files: what they are called and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from model.candle import Ohlcv
from model.errors import ConfigError

HEADER: Final = "timestamp,open,high,low,close,volume,datetime"
"""Opening time in Unix milliseconds, prices, volume, and the same time for people (UTC)."""

_NAME: Final = re.compile(
    r"(?P<symbol>[^_-]+-[^_]+)_(?P<timeframe>\d+[smhdw])_\d{8}_to_(?P<last>\d{8})\.csv"
)


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


class CsvName(NamedTuple):
    """What the name of a candle file says.

    Attributes:
        symbol: ccxt symbol.
        timeframe: ccxt timeframe.
        last_day: UTC day of the last candle, ``YYYYMMDD``.
    """

    symbol: str
    timeframe: str
    last_day: str


def parse_csv_name(path: Path) -> CsvName | None:
    """Read what `csv_name` wrote; None for any other name.

    The parts of a symbol are base, quote, and for contracts the settlement currency and expiry.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    base, quote, *contract = match["symbol"].split("-", 3)
    symbol = f"{base}/{quote}" + (f":{'-'.join(contract)}" if contract else "")
    return CsvName(symbol, match["timeframe"], match["last"])


def newest_csv(folder: Path) -> Path:
    """The candle file that reaches furthest; of several, the one written last.

    Raises:
        ConfigError: there is none.
    """
    return max(_named(folder), key=_age)[1]


def newest_csvs(folder: Path, symbols: Sequence[str], timeframe: str) -> dict[str, Path]:
    """For each symbol its candle file of a timeframe that reaches furthest.

    Raises:
        ConfigError: a symbol has none.
    """
    found: dict[str, Path] = {}
    for name, path in sorted(_named(folder), key=_age):
        if name.timeframe == timeframe:
            found[name.symbol] = path
    missing = [symbol for symbol in symbols if symbol not in found]
    if missing:
        msg = (
            f"{folder} holds no {timeframe} candles of {', '.join(missing)}; "
            "fetch them with: candlecast fetch"
        )
        raise ConfigError(msg)
    return {symbol: found[symbol] for symbol in symbols}


def _named(folder: Path) -> list[tuple[CsvName, Path]]:
    named = [(parse_csv_name(path), path) for path in folder.glob("*.csv")]
    files = [(name, path) for name, path in named if name is not None]
    if not files:
        msg = (
            f"{folder} holds no file named {{SYMBOL}}_{{TIMEFRAME}}_{{START}}_to_{{END}}.csv; "
            "fetch candles with: candlecast fetch"
        )
        raise ConfigError(msg)
    return files


def _age(file: tuple[CsvName, Path]) -> tuple[str, float]:
    name, path = file
    return name.last_day, path.stat().st_mtime
