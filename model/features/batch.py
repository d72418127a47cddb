"""Compute the features of a whole frame of candles with TA-Lib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.features.candle_frames import column
from model.features.definitions import FLAT_BAND, OHLCV, ZERO_VOLUME

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from model.features.definitions import Indicators

    Floats = NDArray[np.float64]


def reference_columns(df: pd.DataFrame, indicators: Indicators) -> dict[str, Floats]:
    """The sixteen indicator columns of the reference, in its order.

    Args:
        df: candles with `open, high, low, close, volume`, oldest first.
        indicators: their periods.

    Returns:
        One array of ``len(df)`` values per column, NaN in warm-up rows.
    """
    import talib

    _, high, low, close, volume = _arrays(df)
    p = indicators
    macd, signal, diff = talib.MACD(close, p.macd_fast, p.macd_slow, p.macd_signal)
    upper, middle, lower = talib.BBANDS(close, p.bb_period, p.bb_std, p.bb_std)
    volume_mean = talib.SMA(volume, 20)
    return {
        "rsi_14": talib.RSI(close, p.rsi_period),
        "macd": macd,
        "macd_signal": signal,
        "macd_diff": diff,
        "bb_upper": upper,
        "bb_middle": middle,
        "bb_lower": lower,
        "bb_width": (upper - lower) / middle,
        "price_change": _ratio(close, _previous(close), 1.0) - 1.0,
        "volume_change": _ratio(volume, _previous(volume), 1.0) - 1.0,
        "hl_range": (high - low) / close,
        "sma_10": talib.SMA(close, 10),
        "sma_30": talib.SMA(close, 30),
        "ema_10": talib.EMA(close, 10),
        "volume_sma_20": volume_mean,
        "volume_ratio": _ratio(volume, volume_mean, 0.0),
    }


def level_free_columns(df: pd.DataFrame) -> dict[str, Floats]:
    """The columns beyond the reference's, none of which depends on the price level.

    Args:
        df: candles with the columns of `reference_columns`.
    """
    close, middle = column(df, "close"), column(df, "bb_middle")
    width = column(df, "bb_upper") - column(df, "bb_lower")
    flat = width < FLAT_BAND * middle
    return {
        "log_return": np.log(close / _previous(close)),
        "bb_position": np.where(flat, 0.0, (close - middle) / np.where(flat, 1.0, width)),
        "macd_rel": column(df, "macd") / close,
        "log_volume_ratio": np.log1p(column(df, "volume_ratio")),
    }


def _arrays(df: pd.DataFrame) -> list[Floats]:
    missing = [name for name in OHLCV if name not in df.columns]
    if missing:
        msg = f"candles lack the columns {', '.join(missing)}"
        raise ValueError(msg)
    return [column(df, name) for name in OHLCV]


def _previous(values: Floats) -> Floats:
    before = np.full_like(values, np.nan)
    before[1:] = values[:-1]
    return before


def _ratio(values: Floats, by: Floats, otherwise: float) -> Floats:
    """``values / by``, and ``otherwise`` where ``by`` is no volume at all."""
    empty = by < ZERO_VOLUME
    return np.where(empty, otherwise, values / np.where(empty, 1.0, by))
