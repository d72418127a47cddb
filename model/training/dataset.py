"""Split candles of several symbols in time order into training, validation and test samples."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np

from model.core.candle import Timeframe, off_grid_text
from model.core.errors import CandlecastError, ConfigError
from model.core.grid import learnt
from model.features.definitions import OHLCV
from model.features.scaler import ScalerSet, SymbolScaler
from model.features.sliding_windows import Windows
from model.files.candle_csv import PATTERN, newest_csvs, parse_csv_name, symbol_in
from model.files.candle_files import rows_on_grid
from model.files.csv_reader import STRICT, FileRules
from model.preprocess import DataPreprocessor, features_of, target_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from model.features.scaler import Target

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

log = logging.getLogger("candlecast.training")

_PARTS: Final = ("training", "validation", "test")
_REQUIRED: Final = ("timestamp", *OHLCV)


class Samples(NamedTuple):
    """Windows and what followed them, n of them.

    Attributes:
        X: scaled windows, ``[n, lookback, features]``.
        y: scaled targets, ``[n]``.
        symbol: number of the symbol, ``[n]``.
        open_ms: opening time of the target candle, Unix milliseconds, ``[n]``.
        last_close: close of the window's last candle, ``[n]``.
        close: close of the target candle, ``[n]``.
    """

    X: Windows
    y: NDArray[np.float32]
    symbol: Integers
    open_ms: Integers
    last_close: Floats
    close: Floats


class Dataset(NamedTuple):
    """What a network is trained, validated and tested on.

    Attributes:
        symbols: ccxt symbols by number.
        scalers: one scaler per symbol, fitted on its training rows.
        train: samples whose target lies before the validation part.
        validation: samples that lie, windows included, after the training part.
        test: samples that lie, windows included, after the validation part.
        from_ms: opening time of the first candle, Unix milliseconds.
        test_from_ms: opening time of the first candle of the test part.
        sha256: hash of the candles.
    """

    symbols: tuple[str, ...]
    scalers: ScalerSet
    train: Samples
    validation: Samples
    test: Samples
    from_ms: int
    test_from_ms: int
    sha256: str


def read_candles(
    path: Path, timeframe: Timeframe, rules: FileRules = STRICT, symbol: str | None = None
) -> pd.DataFrame:
    """Read a candle file, one row per boundary of the timeframe.

    A period without a row had no trade: as in the daemon, the last close stands in for it, with
    zero volume.

    Args:
        path: a file as docs/candle-files.md describes.
        timeframe: length of the candles.
        rules: what is done about rows that cannot be used and periods that have none.
        symbol: ccxt symbol, where it is known.

    Returns:
        `timestamp, open, high, low, close, volume, datetime`, oldest first.

    Raises:
        CandlecastError: no such file, no candles, candles of another timeframe, or more rows that
            cannot be used or periods without one than the rules allow.
    """
    import pandas as pd

    rows = rows_on_grid(path, timeframe, rules, symbol)
    frame = pd.DataFrame(rows.ohlcv, columns=list(OHLCV))
    frame.insert(0, "timestamp", rows.open_ms)
    return on_grid(frame, timeframe)


def on_grid(frame: pd.DataFrame, timeframe: Timeframe) -> pd.DataFrame:
    """One row per boundary of the timeframe, as `read_candles` gives them.

    Args:
        frame: `timestamp, open, high, low, close, volume` of candles that can be true, in any
            order, the last of several for one boundary being the one that counts. Those off the
            grid that most of them keep to are left out, which is logged.
        timeframe: length of the candles.
    """
    import pandas as pd

    frame = frame[list(_REQUIRED)].drop_duplicates("timestamp", keep="last")
    frame = frame.astype({"timestamp": np.int64}).set_index("timestamp").sort_index()
    timeframe = learnt(timeframe, frame.index) or timeframe
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
    """Read candle files, one a symbol.

    Args:
        paths: the files. Names that `candlecast fetch` writes say symbol and timeframe.
        symbols: ccxt symbols that files with other names may hold, see `symbol_in`.
        timeframe: that of files with other names.
        rules: what is done about rows that cannot be used and periods that have none.

    Raises:
        ConfigError: a name that does not tell the symbol, two timeframes, or one symbol twice.
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
    """Symbol and timeframe of a file."""
    if (name := parse_csv_name(path)) is not None:
        return name.symbol, Timeframe.parse(name.timeframe)
    symbol = symbol_in(path, symbols)
    if timeframe is None:
        msg = f"{path}: the name says no timeframe; set trading.timeframe or rename it as {PATTERN}"
        raise ConfigError(msg)
    return symbol, timeframe


def choose_candles(
    files: Sequence[Path],
    folder: Path,
    symbols: Sequence[str],
    timeframe: Timeframe,
    rules: FileRules = STRICT,
) -> dict[str, pd.DataFrame]:
    """Read the files that are named; when none is, each symbol's newest file of a folder.

    Raises:
        ConfigError: files that do not exist, do not tell their symbol, or of another timeframe.
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


def build_dataset(
    config_path: str | Path,
    candles: Mapping[str, pd.DataFrame],
    splits: tuple[float, float] | None = None,
) -> Dataset:
    """Cut candles into samples.

    The parts are separated in time, at the same instants for all symbols: markets move together, so
    one symbol's training must not know another's test. A window that straddles a cut is left out.

    Args:
        config_path: the configuration; its `model` section says shares, lookback and features.
        candles: frames as `read_candles` gives them, by ccxt symbol.
        splits: shares of training and validation instead of the configuration's.

    Raises:
        CandlecastError: a symbol has too few candles for one sample in each part.
    """
    config = DataPreprocessor(config_path).config
    settings = config["model"]
    cuts = cut_times(candles, *(splits or (settings["train_split"], settings["val_split"])))
    lookback = int(config["model"]["lookback_periods"])
    found = [
        _cut_symbol(config_path, symbol, frame, cuts, lookback) for symbol, frame in candles.items()
    ]
    rows = np.concatenate([symbol.rows for symbol in found])
    train, validation, test = (_joined(found, rows, part, lookback) for part in range(len(_PARTS)))
    scalers = {symbol: one.scaler for symbol, one in zip(candles, found, strict=True)}
    target = cast("Target", target_of(config))
    return Dataset(
        symbols=tuple(candles),
        scalers=ScalerSet(features_of(config), target, scalers),
        train=train,
        validation=validation,
        test=test,
        from_ms=min(int(frame["timestamp"].iloc[0]) for frame in candles.values()),
        test_from_ms=int(cuts[1]),
        sha256=_sha256(candles),
    )


class _Symbol(NamedTuple):
    """Scaled rows of one symbol, and by part where its windows start and what `Samples` says."""

    rows: NDArray[np.float32]
    scaler: SymbolScaler
    parts: list[tuple[Integers, NDArray[np.float32], Integers, Floats, Floats]]


def _cut_symbol(
    config_path: str | Path, symbol: str, frame: pd.DataFrame, cuts: Integers, lookback: int
) -> _Symbol:
    preprocessor = DataPreprocessor(config_path)
    open_ms = frame["timestamp"].to_numpy(dtype=np.int64)
    cut_rows = np.searchsorted(open_ms, cuts)
    # The symbol's own share of rows before the cut, which differs where histories do.
    preprocessor.config["model"]["train_split"] = cut_rows[0] / len(frame)
    try:
        rows, y, ends = preprocessor.scaled_rows(frame, lookback)
    except ValueError as error:
        msg = f"{symbol}: {error}"
        raise CandlecastError(msg) from None
    starts, close = ends - lookback, frame["close"].to_numpy(dtype=np.float64)
    parts = []
    edges = (0, *cut_rows, len(frame))
    for name, first, end in zip(_PARTS, edges[:-1], edges[1:], strict=True):
        inside = (starts >= first) & (ends < end)
        if not inside.any():
            msg = (
                f"{symbol}: too few candles for one {name} sample; all symbols need to reach "
                f"over the same days, and each part over more than {lookback} candles"
            )
            raise CandlecastError(msg)
        of = ends[inside]
        parts.append((starts[inside], y[inside], open_ms[of], close[of - 1], close[of]))
    return _Symbol(rows, preprocessor.symbol_scaler(), parts)


def _joined(
    symbols: Sequence[_Symbol], rows: NDArray[np.float32], part: int, lookback: int
) -> Samples:
    """One part of all symbols, whose ``rows`` follow each other."""
    before = np.cumsum([0, *(len(symbol.rows) for symbol in symbols)])
    parts = [symbol.parts[part] for symbol in symbols]
    starts = [at + first for at, (first, *_) in zip(before[:-1], parts, strict=True)]
    numbers = [np.full(len(first), number) for number, (first, *_) in enumerate(parts)]
    _, y, open_ms, last_close, close = map(np.concatenate, zip(*parts, strict=True))
    windows = Windows(rows, np.concatenate(starts), lookback)
    return Samples(windows, y, np.concatenate(numbers), open_ms, last_close, close)


def cut_times(
    candles: Mapping[str, pd.DataFrame], train_split: float, val_split: float
) -> Integers:
    """Opening times of the first candles of validation and test, whatever their symbol.

    Raises:
        ConfigError: there are no candles.
    """
    if not candles:
        msg = "there are no candles to train on"
        raise ConfigError(msg)
    times = np.unique(np.concatenate([f["timestamp"].to_numpy() for f in candles.values()]))
    shares = (train_split, train_split + val_split)
    positions = [min(int(len(times) * share), len(times) - 1) for share in shares]
    return times[positions].astype(np.int64)


def _sha256(candles: Mapping[str, pd.DataFrame]) -> str:
    digest = hashlib.sha256()
    for symbol in sorted(candles):
        digest.update(symbol.encode() + b"\0")
        digest.update(candles[symbol][list(_REQUIRED)].to_numpy(dtype="<f8").tobytes())
    return digest.hexdigest()
