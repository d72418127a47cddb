"""Score forecasts against the last-value forecast."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.stats.bootstrap import Estimate, estimate_ratio

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Scored(NamedTuple):
    """Forecasts and their outcomes, n of them.

    Attributes:
        symbol: number of the symbol, ``[n]``.
        open_ms: opening time of the forecast candle, Unix milliseconds, ``[n]``.
        last_close: close that the forecast started from, ``[n]``.
        close: actual close, ``[n]``.
        predicted: forecast close, ``[n]``.
    """

    symbol: Integers
    open_ms: Integers
    last_close: Floats
    close: Floats
    predicted: Floats

    def of(self, symbol: int) -> Scored:
        """The forecasts of one symbol."""
        return Scored._make(array[self.symbol == symbol] for array in self)


class Evaluation(NamedTuple):
    """Errors against the last-value forecast, with 95 % intervals.

    Several symbols are averaged per candle first, so each candle counts once.

    Attributes:
        n: forecasts.
        candles: different candles among them.
        moves: forecasts with a direction: neither the forecast nor the close equals the last close.
        mae: mean absolute error in price.
        mae_percent: mean absolute error in per cent of the last close.
        last_value_mae: the last-value forecast's error in price.
        last_value_percent: the same in per cent.
        mae_ratio: relative errors summed, model over last value; below 1 is skill.
        direction: share of the moves whose direction was right; NaN without a move.
    """

    n: int
    candles: int
    moves: int
    mae: Estimate
    mae_percent: Estimate
    last_value_mae: float
    last_value_percent: float
    mae_ratio: Estimate
    direction: Estimate


def scaled_metrics(predicted: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
    """The reference's four metrics of forecasts ``[n]`` in scaled units, n > 0.

    Returns:
        `mse`, `mae`, `rmse`, and `direction_accuracy`, which compares the signs of consecutive
        differences (NaN for one sample).
    """
    error = predicted.astype(np.float64) - y
    mse = float(np.mean(error**2))
    same = np.sign(np.diff(predicted)) == np.sign(np.diff(y))
    return {
        "mse": mse,
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.sqrt(mse)),
        "direction_accuracy": float(np.mean(same)) if same.size else float("nan"),
    }


def evaluate(scored: Scored, seed: int = 0) -> Evaluation:
    """Compare forecasts with the last-value forecast.

    The intervals allow for correlated symbols (values are averaged over symbols per candle) and for
    autocorrelation (see `model.stats.bootstrap`).

    Args:
        scored: at least one forecast.
        seed: of the resampling.
    """
    error = np.abs(scored.predicted - scored.close)
    last_value_error = np.abs(scored.last_close - scored.close)
    moved = np.sign(scored.close - scored.last_close)
    called = np.sign(scored.predicted - scored.last_close)
    decided = (moved != 0.0) & (called != 0.0)
    _, candle = np.unique(scored.open_ms, return_inverse=True)
    count = np.bincount(candle)

    def per_candle(values: NDArray[Any]) -> Floats:
        mean: Floats = np.bincount(candle, values) / count
        return mean

    percent = per_candle(100.0 * error / scored.last_close)
    last_value_percent = per_candle(100.0 * last_value_error / scored.last_close)
    each = np.ones(len(count))
    return Evaluation(
        n=len(error),
        candles=len(count),
        moves=int(decided.sum()),
        mae=estimate_ratio(per_candle(error), each, seed),
        mae_percent=estimate_ratio(percent, each, seed),
        last_value_mae=float(per_candle(last_value_error).mean()),
        last_value_percent=float(last_value_percent.mean()),
        mae_ratio=estimate_ratio(percent, last_value_percent, seed),
        direction=estimate_ratio(
            per_candle(decided & (moved == called)), per_candle(decided), seed
        ),
    )
