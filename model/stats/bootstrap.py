"""Estimate 95 % intervals of means and ratios of time series by block bootstrap.

Neighbouring candles are correlated, so single candles must not be resampled as if they were
independent. The circular block bootstrap (Politis and Romano, 1992) resamples blocks of candles,
the last candle followed by the first.

The block length comes from the series: Politis and White (2004), "Automatic block-length selection
for the dependent bootstrap", Econometric Reviews 23, for circular blocks. It grows as n^(1/3), and
n^(1/3) is also the minimum here, since a weak correlation may go unnoticed.

Written by hand: `scipy.stats.bootstrap` resamples independent values only and takes 73 MB to load.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL: Final = 0.95
_TAILS: Final = (50.0 * (1.0 - LEVEL), 50.0 * (1.0 + LEVEL))
_ROUNDS: Final = 10
_RESAMPLES: Final = 100
"""Resamples of one round; bounds the memory."""


class Estimate(NamedTuple):
    """A value and the ends of its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


def estimate_ratio(above: Floats, below: Floats, seed: int = 0) -> Estimate:
    """Estimate the sum of one series divided by the sum of another, with its interval.

    Args:
        above: ``[n]`` in time order, n > 0.
        below: ``[n]``, none below 0.
        seed: of the resampling.

    Returns:
        All NaN where ``below`` sums to 0; NaN ends where a resample of it may sum to 0.
    """
    if below.sum() <= 0.0:
        return Estimate(np.nan, np.nan, np.nan)
    ratio = float(above.sum() / below.sum())
    # Linearised ratio: it has the variance and the autocorrelation of the ratio.
    length = block_length(above - ratio * below)
    pairs = np.stack([above, below])
    looped = np.concatenate([pairs, pairs[:, :length]], axis=1)
    sums = np.concatenate([np.zeros((2, 1)), np.cumsum(looped, axis=1)], axis=1)
    rng = np.random.default_rng(seed)
    rounds = [_resampled(sums, length, rng) for _ in range(_ROUNDS)]
    low, high = np.percentile(np.concatenate(rounds), _TAILS)
    return Estimate(ratio, float(low), float(high))


def _resampled(sums: Floats, length: int, rng: np.random.Generator) -> Floats:
    """Ratios of resamples; ``sums [2, n + length + 1]`` are cumulative, of the looped series."""
    n = sums.shape[1] - 1 - length
    starts = rng.integers(0, n, (_RESAMPLES, -(-n // length)))
    above, below = (sums[:, starts + length] - sums[:, starts]).sum(axis=2)
    ratios: Floats = above / np.where(below > 0.0, below, np.nan)
    return ratios


def block_length(values: Floats) -> int:
    """Choose the block length by Politis and White; at least n^(1/3), at most 3·√n.

    Args:
        values: ``[n]`` in time order, n > 0.
    """
    n = len(values)
    shortest, longest = int(np.ceil(n ** (1 / 3))), int(min(np.ceil(3.0 * n**0.5), n))
    run = max(5, int(np.ceil(np.log10(n) ** 0.5)))
    covariance = _autocovariance(values, min(int(np.ceil(n**0.5)) + run, n - 1))
    if len(covariance) <= run or covariance[0] <= 0.0:
        return shortest
    small = np.abs(covariance[1:]) < 2.0 * covariance[0] * (np.log10(n) / n) ** 0.5
    uncorrelated = np.convolve(small, np.ones(run), "valid") == run
    last = int(np.argmax(uncorrelated)) if uncorrelated.any() else len(small)
    width = min(2 * max(last, 1), len(small))
    lags = np.arange(1, width + 1)
    weighted = 2.0 * np.minimum(1.0, 2.0 * (1.0 - lags / width)) * covariance[1 : width + 1]
    spectrum = covariance[0] + weighted.sum()
    if spectrum <= 0.0:
        return shortest
    slope = float((lags * weighted).sum() / spectrum)
    return int(np.clip(np.ceil((1.5 * slope**2 * n) ** (1 / 3)), shortest, longest))


def _autocovariance(values: Floats, lags: int) -> Floats:
    """Autocovariance at lags 0 … ``lags``."""
    centred = values - values.mean()
    n = len(values)
    return np.array([centred[: n - lag] @ centred[lag:] / n for lag in range(lags + 1)])
