"""Build and parse the names and rows of candle CSV files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from model.core.errors import ConfigError
from model.core.symbols import file_name, symbol_of

if TYPE_CHECKING:
    from model.core.candle import Ohlcv

HEADER: Final = "timestamp,open,high,low,close,volume,datetime"
"""Opening time in Unix milliseconds, prices, volume, and the same time for people (UTC)."""

PATTERN: Final = "{SYMBOL}_{TIMEFRAME}_{START}_to_{END}.csv"
"""How `candlecast fetch` names its files."""

_NAME: Final = re.compile(
    r"(?P<symbol>.+)_(?P<timeframe>[^_]+)_(?P<first>[^_]+)_to_(?P<last>[^_]+)\.csv(\.gz)?"
)
_TIMEFRAME: Final = re.compile(r"[1-9]\d{0,3}[smhdw]")
_DAY: Final = re.compile(r"\d{8}")
_EXCHANGE_CODES: Final = {"BTC": "XBT", "DOGE": "XDG"}
"""Currency codes that some exchanges use, also in file names, instead of the ccxt ones."""


def csv_name(symbol: str, timeframe: str, first_ms: int, last_ms: int) -> str:
    """``{SYMBOL}_{TIMEFRAME}_{START}_to_{END}.csv``, e.g. ``BTC-USDT_1m_20260801_to_20261030.csv``.

    Args:
        symbol: ccxt symbol.
        timeframe: ccxt timeframe.
        first_ms: opening time of the first candle, Unix milliseconds.
        last_ms: opening time of the last candle, Unix milliseconds.
    """
    start, end = (f"{datetime.fromtimestamp(ms / 1000, UTC):%Y%m%d}" for ms in (first_ms, last_ms))
    return f"{file_name(symbol)}_{timeframe}_{start}_to_{end}.csv"


def csv_row(open_ms: int, ohlcv: Ohlcv) -> str:
    """One line under :data:`HEADER`, without its end; floats keep every bit."""
    prices = ",".join(repr(value) for value in ohlcv)
    return f"{open_ms},{prices},{datetime.fromtimestamp(open_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


class CsvName(NamedTuple):
    """The parts of the name of a candle file.

    Attributes:
        symbol: ccxt symbol.
        timeframe: ccxt timeframe.
        last_day: UTC day of the last candle, ``YYYYMMDD``.
    """

    symbol: str
    timeframe: str
    last_day: str


def parse_csv_name(path: Path) -> CsvName | None:
    """Read what `csv_name` wrote; None for any other name."""
    match = _NAME.fullmatch(path.name)
    if match is None or _invalid_part(match):
        return None
    symbol = symbol_of(match["symbol"])
    return None if symbol is None else CsvName(symbol, match["timeframe"], match["last"])


def symbol_in(path: Path, symbols: Sequence[str]) -> str:
    """Find the symbol of a file whose name does not follow `PATTERN`.

    The symbol is the one that the name spells, e.g. ``BTC/USDT`` in ``BTCUSDT-1m-2025-01.csv``. If
    the name spells no pair and there is only one symbol, it is that one.

    Args:
        path: the file.
        symbols: ccxt symbols that it may hold.

    Raises:
        ConfigError: the name spells another pair, or fits several symbols.
    """
    spelt = _joined_parts(path.name)
    fits = {s: max(map(len, spelt & _spellings(s)), default=0) for s in symbols}
    longest = max(fits.values(), default=0)
    best = [symbol for symbol, length in fits.items() if length == longest]
    known = ", ".join(symbols)
    if len(best) > 1 and longest:
        msg = f"{path}: the name may stand for {' or '.join(best)}"
    elif len(best) > 1 or not best:
        other = f", and holds no symbol of trading.symbols ({known})" if known else ""
        msg = f"{path}: {_name_problem(path)}{other}"
    elif not longest and (pair := _other_pair(path.name, best[0])):
        msg = f"{path}: the name says {pair}, but trading.symbols says {known}"
    else:
        return best[0]
    msg += f"; rename the file as {PATTERN}, e.g. BTC-USDT_1m_20260801_to_20261030.csv"
    raise ConfigError(msg)


def _invalid_part(match: re.Match[str]) -> str:
    """Describe the first part of a name that `csv_name` would not write; "" if there is none."""
    if not _TIMEFRAME.fullmatch(match["timeframe"]):
        return f"its timeframe {match['timeframe']!r} is not one such as 1m or 4h"
    for part in ("first", "last"):
        if not _DAY.fullmatch(match[part]):
            return f"its day {match[part]!r} is not written as YYYYMMDD"
    if symbol_of(match["symbol"]) is None:
        return f"its symbol {match['symbol']!r} is not written as BASE-QUOTE, e.g. BTC-USDT"
    return ""


def _name_problem(path: Path) -> str:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return f"the name does not follow {PATTERN}"
    return f"in the name {_invalid_part(match)}"


def _joined_parts(name: str) -> set[str]:
    """Neighbouring words of a name, joined, in capitals: BTC, USDT, BTCUSDT of ``BTC_USDT``."""
    words = re.findall(r"[^\W_]+", name.upper())
    max_words = 5
    return {
        "".join(words[at:end])
        for at in range(len(words))
        for end in range(at + 1, min(at + max_words, len(words)) + 1)
    }


def _spellings(symbol: str) -> set[str]:
    """Spellings of a symbol in other programs, without signs, with and without the contract."""
    pair, _, contract = symbol.upper().partition(":")
    base, _, quote = pair.partition("/")
    bases = {base, _EXCHANGE_CODES.get(base, base)}
    words = [re.sub(r"[\W_]", "", f"{name}{quote}") for name in bases]
    return {*words, *(f"{word}{re.sub(r'[^0-9A-Z]', '', contract)}" for word in words)}


def _other_pair(name: str, symbol: str) -> str | None:
    """A pair of the symbol's quote currency that a name spells in capitals; None for none."""
    quote = symbol.partition("/")[2].partition(":")[0]
    match = re.search(rf"(?<![^\W_])([A-Z0-9]{{2,10}})[-_]?{re.escape(quote)}(?![^\W_])", name)
    return None if match is None else f"{match[1]}/{quote}"


def newest_csv(folder: Path) -> Path:
    """The candle file with the latest last day; of several, the one written last.

    Raises:
        ConfigError: there is none.
    """
    return max(_named(folder), key=_recency)[1]


def newest_csvs(folder: Path, symbols: Sequence[str], timeframe: str) -> dict[str, Path]:
    """For each symbol its candle file of a timeframe with the latest last day.

    Raises:
        ConfigError: a symbol has none.
    """
    found: dict[str, Path] = {}
    for name, path in sorted(_named(folder), key=_recency):
        if name.timeframe == timeframe:
            found[name.symbol] = path
    missing = [symbol for symbol in symbols if symbol not in found]
    if missing:
        msg = (
            f"{folder} holds no {timeframe} candles of {', '.join(missing)}; {_fetch_hint(folder)}"
        )
        raise ConfigError(msg)
    return {symbol: found[symbol] for symbol in symbols}


def _named(folder: Path) -> list[tuple[CsvName, Path]]:
    named = [(parse_csv_name(path), path) for path in folder.glob("*.csv")]
    files = [(name, path) for name, path in named if name is not None]
    if not files:
        msg = f"{folder} holds no file named {PATTERN}; {_fetch_hint(folder)}"
        raise ConfigError(msg)
    return files


def _fetch_hint(folder: Path) -> str:
    others = [path.name for path in folder.glob("*.csv*") if parse_csv_name(path) is None]
    alternative = f", or choose other files ({min(others)} …) with --data" if others else ""
    return f"fetch them with: candlecast fetch{alternative}"


def _recency(file: tuple[CsvName, Path]) -> tuple[str, float]:
    name, path = file
    return name.last_day, path.stat().st_mtime
