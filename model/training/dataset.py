"""Split candles of several symbols in time order into training, validation and test samples."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np

from model.core.errors import CandlecastError, ConfigError
from model.features.scaler import ScalerSet, SymbolScaler
from model.features.sliding_windows import Windows
from model.preprocess import DataPreprocessor, features_of, target_of
from model.training.candle_sources import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from model.features.scaler import Target

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_PART_NAMES: Final = ("training", "validation", "test")


class Samples(NamedTuple):
    """Windows and their targets, n of them.

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
    """Samples for training, validation and test.

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


def build_dataset(
    config_path: str | Path,
    candles: Mapping[str, pd.DataFrame],
    splits: tuple[float, float] | None = None,
) -> Dataset:
    """Split candles into samples.

    The parts are separated in time, at the same instants for all symbols: symbols are correlated,
    so one symbol's training part must not overlap another's test part. Windows across a boundary
    are left out.

    Args:
        config_path: the configuration; its `model` section gives shares, lookback and features.
        candles: frames as `candle_sources.read_candles` returns them, by ccxt symbol.
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
    train, validation, test = (
        _joined(found, rows, part, lookback) for part in range(len(_PART_NAMES))
    )
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
    """Scaled rows of one symbol and, by part, starts of windows and columns of `Samples`."""

    rows: NDArray[np.float32]
    scaler: SymbolScaler
    parts: list[tuple[Integers, NDArray[np.float32], Integers, Floats, Floats]]


def _cut_symbol(
    config_path: str | Path, symbol: str, frame: pd.DataFrame, cuts: Integers, lookback: int
) -> _Symbol:
    preprocessor = DataPreprocessor(config_path)
    open_ms = frame["timestamp"].to_numpy(dtype=np.int64)
    cut_rows = np.searchsorted(open_ms, cuts)
    # The symbol's own share of rows before the cut; histories differ in length.
    preprocessor.config["model"]["train_split"] = cut_rows[0] / len(frame)
    try:
        rows, y, ends = preprocessor.scaled_rows(frame, lookback)
    except ValueError as error:
        msg = f"{symbol}: {error}"
        raise CandlecastError(msg) from None
    starts, close = ends - lookback, frame["close"].to_numpy(dtype=np.float64)
    parts = []
    edges = (0, *cut_rows, len(frame))
    for name, first, end in zip(_PART_NAMES, edges[:-1], edges[1:], strict=True):
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
    """Join one part of all symbols, whose ``rows`` are concatenated."""
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
    """Opening times of the first candles of validation and test, over all symbols.

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
        digest.update(candles[symbol][list(COLUMNS)].to_numpy(dtype="<f8").tobytes())
    return digest.hexdigest()
