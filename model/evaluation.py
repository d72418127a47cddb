"""How good forecasts are, always beside the last-value forecast."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_RESAMPLES: Final = 1000
_INTERVAL: Final = (2.5, 97.5)


class Scored(NamedTuple):
    """Forecasts and what happened, n of them.

    Attributes:
        symbol: number of the symbol, ``[n]``.
        open_ms: opening time of the forecast candle, Unix milliseconds, ``[n]``.
        last_close: close that the forecast started from, ``[n]``.
        close: what the close became, ``[n]``.
        predicted: what it was forecast to be, ``[n]``.
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
    """Errors against the last-value forecast.

    Attributes:
        n: forecasts.
        mae: mean absolute error in price.
        mae_percent: mean absolute error in per cent of the last close.
        mae_ratio: relative errors summed, model over last value; below 1 is skill.
        low: lower end of the ratio's 95 % interval.
        high: upper end.
        direction: share of moves whose direction was right, ties left out; NaN without a move.
    """

    n: int
    mae: float
    mae_percent: float
    mae_ratio: float
    low: float
    high: float
    direction: float


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
    """Compare forecasts with the last value.

    The interval respects that symbols move together (losses are averaged over symbols per candle)
    and that quiet and wild hours come in runs (blocks of candles are resampled, not candles):
    circular block bootstrap after Politis and Romano (1992), blocks of √n candles.

    Args:
        scored: at least one forecast.
        seed: of the resampling.
    """
    model = np.abs(scored.predicted - scored.close) / scored.last_close
    last_value = np.abs(scored.last_close - scored.close) / scored.last_close
    _, candle = np.unique(scored.open_ms, return_inverse=True)
    count = np.bincount(candle)
    pairs = np.stack([np.bincount(candle, loss) / count for loss in (model, last_value)])
    low, high = _ratio_interval(pairs, seed)
    moved = np.sign(scored.close - scored.last_close)
    called = np.sign(scored.predicted - scored.last_close)
    decided = (moved != 0.0) & (called != 0.0)
    return Evaluation(
        n=len(model),
        mae=float(np.mean(np.abs(scored.predicted - scored.close))),
        mae_percent=100.0 * float(np.mean(model)),
        mae_ratio=_ratio(float(model.sum()), float(last_value.sum())),
        low=low,
        high=high,
        direction=float(np.mean(moved[decided] == called[decided])) if decided.any() else np.nan,
    )


def _ratio_interval(pairs: Floats, seed: int) -> tuple[float, float]:
    """Bootstrap interval of the ratio of the sums of two rows ``[2, n]``, n in time order."""
    n = pairs.shape[1]
    length = max(1, round(n**0.5))
    blocks = -(-n // length)
    sums = np.concatenate([np.zeros((2, 1)), np.cumsum(np.tile(pairs, 2), axis=1)], axis=1)
    starts = np.random.default_rng(seed).integers(0, n, (_RESAMPLES, blocks))
    model, last_value = (sums[:, starts + length] - sums[:, starts]).sum(axis=2)
    ratios = model / np.where(last_value > 0.0, last_value, np.nan)
    low, high = np.percentile(ratios, _INTERVAL)
    return float(low), float(high)


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0.0 else float("nan")
