"""Forecast past candles with a bundle as the daemon would have done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from model.core.candle import Timeframe
from model.core.errors import CandlecastError
from model.features.batch import level_free_columns, reference_columns
from model.inference.engine import Engine
from model.stats.scores import Scored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from model.features.scaler import BoundScaler
    from model.registry.manifest import Manifest
    from model.registry.registry import Bundle

    Progress = Callable[[str, int, int], None]

_CHUNK: Final = 256
"""Windows that are run at once: more are no faster, and the caller is told later how far it is."""


class _Symbol(NamedTuple):
    """Rows of one symbol and where its first honest forecast stands."""

    number: int
    name: str
    open_ms: NDArray[np.int64]
    close: NDArray[np.float64]
    scaled: NDArray[np.float32]
    first: int


def hindcast(bundle: Bundle, candles: Mapping[str, pd.DataFrame], progress: Progress) -> Scored:
    """Forecast every candle that the model has not learnt from.

    The first one forecast is the one whose whole window lies after the training span and after the
    indicators' warm-up. The network is the bundle's compiled one, which the daemon serves: it needs
    no Keras, and it is what a consumer would have got.

    Args:
        bundle: a verified model.
        candles: frames of the model's timeframe as `model.dataset.read_candles` gives them, by ccxt
            symbol.
        progress: called with a symbol, how many of its candles are done, and how many there are.

    Returns:
        The forecasts, symbols numbered in the order of ``candles``.

    Raises:
        BundleError: a symbol the model was not trained for.
        CandlecastError: a symbol has no candle left to forecast.
    """
    manifest = bundle.manifest
    scaler = bundle.scalers.bind(list(candles))
    # All symbols first: a fault of the last one should not show after minutes of work.
    symbols = [
        _prepare(manifest, scaler, number, name, frame)
        for number, (name, frame) in enumerate(candles.items())
    ]
    engine = Engine(bundle.onnx, 1, manifest.lookback, len(manifest.features))
    parts = []
    for symbol in symbols:
        raw = _run(engine, symbol, progress)
        numbers = np.full(len(raw), symbol.number)
        value = scaler.unscale_target(numbers, raw)
        last_close, close = symbol.close[symbol.first - 1 : -1], symbol.close[symbol.first :]
        with np.errstate(over="ignore"):
            price = value if manifest.target == "close" else last_close * np.exp(value)
        parts.append(Scored(numbers, symbol.open_ms[symbol.first :], last_close, close, price))
    return Scored._make(map(np.concatenate, zip(*parts, strict=True)))


def _prepare(
    manifest: Manifest, scaler: BoundScaler, number: int, name: str, frame: pd.DataFrame
) -> _Symbol:
    open_ms = frame["timestamp"].to_numpy(dtype=np.int64)
    first = _first(manifest, name, open_ms)
    frame = frame.assign(**reference_columns(frame, manifest.indicators))
    frame = frame.assign(**level_free_columns(frame))
    rows = frame[list(manifest.features)].to_numpy(dtype=np.float64)
    return _Symbol(
        number=number,
        name=name,
        open_ms=open_ms,
        close=frame["close"].to_numpy(dtype=np.float64),
        scaled=scaler.scale(np.full(len(rows), number), rows),
        first=first,
    )


def _first(manifest: Manifest, name: str, open_ms: NDArray[np.int64]) -> int:
    """The first row whose window is warm and lies after the training span."""
    needed = manifest.indicators.warmup + manifest.lookback
    if len(open_ms) <= needed:
        msg = (
            f"{name}: {len(open_ms)} candles are too few: the first {needed} only warm up the "
            "indicators and fill the window; fetch more: candlecast fetch --days 30"
        )
        raise CandlecastError(msg)
    window_ms = manifest.lookback * Timeframe.parse(manifest.timeframe).ms
    fresh = int(np.searchsorted(open_ms, manifest.trained_to_ms + window_ms, side="right"))
    if fresh == len(open_ms):
        msg = (
            f"{name}: no candle is left to judge model {manifest.version} by: it has learnt from "
            f"candles up to {_minute(manifest.trained_to_ms)}, a forecast needs "
            f"{manifest.lookback} more before it, and the data end at "
            f"{_minute(int(open_ms[-1]))}; fetch newer candles: candlecast fetch"
        )
        raise CandlecastError(msg)
    return max(needed, fresh)


def _run(engine: Engine, symbol: _Symbol, progress: Progress) -> NDArray[np.float32]:
    """The network's outputs for every row from ``symbol.first`` on."""
    lookback, total = engine.lookback, len(symbol.scaled) - symbol.first
    windows = np.lib.stride_tricks.sliding_window_view(symbol.scaled, lookback, axis=0)
    windows = windows[symbol.first - lookback : -1].transpose(0, 2, 1)
    outputs = []
    for start in range(0, total, _CHUNK):
        outputs.append(engine.full(windows[start : start + _CHUNK]))
        progress(symbol.name, min(start + _CHUNK, total), total)
    return np.concatenate(outputs)


def _minute(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
