"""Read candle files into data frames with one row per boundary of the timeframe."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import numpy as np

from model.core.candle import Timeframe, off_grid_text
from model.core.errors import ConfigError
from model.core.grid import find_grid
from model.features.definitions import OHLCV
from model.files.candle_csv import PATTERN, newest_csvs, parse_csv_name, symbol_in
from model.files.candle_files import rows_on_grid
from model.files.csv_reader import STRICT, FileRules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

log = logging.getLogger("candlecast.training")

COLUMNS: Final = ("timestamp", *OHLCV)
"""Columns that identify the content of a candle."""


def read_candles(
    path: Path, timeframe: Timeframe, rules: FileRules = STRICT, symbol: str | None = None
) -> pd.DataFrame:
    """Read a candle file, one row per boundary of the timeframe.

    A period without a row had no trade: as in the daemon it becomes a flat candle at the last
    close with zero volume.

    Args:
        path: a file as docs/candle-files.md describes.
        timeframe: length of the candles.
        rules: how unusable rows and missing periods are handled.
        symbol: ccxt symbol, where it is known.

    Returns:
        `timestamp, open, high, low, close, volume, datetime`, oldest first.

    Raises:
        CandlecastError: no such file, no candles, candles of another timeframe, or more unusable
            rows or missing periods than the rules allow.
    """
    import pandas as pd

    rows = rows_on_grid(path, timeframe, rules, symbol)
    frame = pd.DataFrame(rows.ohlcv, columns=list(OHLCV))
    frame.insert(0, "timestamp", rows.open_ms)
    return align_to_grid(frame, timeframe)


def align_to_grid(frame: pd.DataFrame, timeframe: Timeframe) -> pd.DataFrame:
    """Return one row per boundary of the timeframe, as `read_candles` does.

    Args:
        frame: `timestamp, open, high, low, close, volume` of possible candles, in any order; of
            several for one boundary the last is used. Candles off the grid of the majority are
            left out and logged.
        timeframe: length of the candles.
    """
    import pandas as pd

    frame = frame[list(COLUMNS)].drop_duplicates("timestamp", keep="last")
    frame = frame.astype({"timestamp": np.int64}).set_index("timestamp").sort_index()
    timeframe = find_grid(timeframe, frame.index) or timeframe
    good = (frame.index - timeframe.origin_ms) % timeframe.ms == 0
    if not good.all():
        odd = frame.index[~good]
        log.warning(
            "%d of %d candles are left out: %s",
            len(odd),
            len(frame),
            off_grid_text(odd[0], timeframe),
        )
        frame = frame[good]
    grid = np.arange(frame.index[0], frame.index[-1] + 1, timeframe.ms)
    frame = frame.reindex(pd.Index(grid, name="timestamp"))
    frame["close"] = frame["close"].ffill()
    frame["volume"] = frame["volume"].fillna(0.0)
    for name in ("open", "high", "low"):
        frame[name] = frame[name].fillna(frame["close"])
    frame = frame.reset_index()
    return frame.assign(datetime=pd.to_datetime(frame["timestamp"], unit="ms"))


def read_sources(
    paths: Sequence[Path],
    symbols: Sequence[str] = (),
    timeframe: Timeframe | None = None,
    rules: FileRules = STRICT,
) -> tuple[dict[str, pd.DataFrame], Timeframe]:
    """Read candle files, one per symbol.

    Args:
        paths: the files. Names of `candlecast fetch` contain symbol and timeframe.
        symbols: ccxt symbols that files with other names may hold, see `symbol_in`.
        timeframe: of files with other names.
        rules: how unusable rows and missing periods are handled.

    Raises:
        ConfigError: a name without a clear symbol, two timeframes, or one symbol twice.
        CandlecastError: a file that does not hold candles.
    """
    named = {}
    for path in paths:
        symbol, length = _named(path, symbols, timeframe)
        if symbol in named:
            msg = f"{path}: there is a second file of {symbol}; name one per symbol"
            raise ConfigError(msg)
        named[symbol] = (path, length)
    lengths = {length.text for _, length in named.values()}
    if len(lengths) > 1:
        msg = f"the files are of different timeframes: {', '.join(sorted(lengths))}"
        raise ConfigError(msg)
    candles = {s: read_candles(path, length, rules, s) for s, (path, length) in named.items()}
    return candles, Timeframe.parse(lengths.pop())


def _named(
    path: Path, symbols: Sequence[str], timeframe: Timeframe | None
) -> tuple[str, Timeframe]:
    """Return symbol and timeframe of a file."""
    if (name := parse_csv_name(path)) is not None:
        return name.symbol, Timeframe.parse(name.timeframe)
    symbol = symbol_in(path, symbols)
    if timeframe is None:
        msg = f"{path}: the name has no timeframe; set trading.timeframe or rename it as {PATTERN}"
        raise ConfigError(msg)
    return symbol, timeframe


def choose_candles(
    files: Sequence[Path],
    folder: Path,
    symbols: Sequence[str],
    timeframe: Timeframe,
    rules: FileRules = STRICT,
) -> dict[str, pd.DataFrame]:
    """Read the given files; without any, the newest file of each symbol in a folder.

    Raises:
        ConfigError: a missing file, a name without a clear symbol, or another timeframe.
        CandlecastError: a file that does not hold candles.
    """
    if not files:
        newest = newest_csvs(folder, symbols, timeframe.text)
        return {s: read_candles(path, timeframe, rules, s) for s, path in newest.items()}
    for path in files:
        if (name := parse_csv_name(path)) and Timeframe.parse(name.timeframe).ms != timeframe.ms:
            msg = f"{path}: holds {name.timeframe} candles, not {timeframe.text}"
            raise ConfigError(msg)
    return read_sources(files, symbols, timeframe, rules)[0]
