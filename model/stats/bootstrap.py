"""95 % intervals of means and ratios over time, by block bootstrap.

What follows in time is alike: quiet and wild hours come in runs, so single candles must not be
drawn as if each told something of its own. The circular block bootstrap (Politis and Romano, 1992)
draws runs of candles, the last followed by the first.

How long a run must be, the series itself says: Politis and White (2004), "Automatic block-length
selection for the dependent bootstrap", Econometric Reviews 23, for circular blocks. The length
grows as n^(1/3), and n^(1/3) is the least taken here: where no correlation is seen, there may be
some that is too weak to see.
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
"""Of one round: what is in memory at once."""


class Estimate(NamedTuple):
    """A number and the ends of its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


def estimate_ratio(above: Floats, below: Floats, seed: int = 0) -> Estimate:
    """The sum of one series over the sum of another, with its interval.

    Args:
        above: ``[n]`` in time order, n > 0.
        below: ``[n]``, none below 0.
        seed: of the resampling.

    Returns:
        NaN throughout where ``below`` sums to 0, and NaN ends where that may happen by chance.
    """
    if below.sum() <= 0.0:
        return Estimate(np.nan, np.nan, np.nan)
    ratio = float(above.sum() / below.sum())
    # The ratio's linear part: its variance is the ratio's, and so are its correlations.
    length = block_length(above - ratio * below)
    pairs = np.stack([above, below])
    looped = np.concatenate([pairs, pairs[:, :length]], axis=1)
    sums = np.concatenate([np.zeros((2, 1)), np.cumsum(looped, axis=1)], axis=1)
    rng = np.random.default_rng(seed)
    rounds = [_resampled(sums, length, rng) for _ in range(_ROUNDS)]
    low, high = np.percentile(np.concatenate(rounds), _TAILS)
    return Estimate(ratio, float(low), float(high))


def _resampled(sums: Floats, length: int, rng: np.random.Generator) -> Floats:
    """Ratios of resamples; ``sums [2, n + length + 1]`` run from the start of the looped series."""
    n = sums.shape[1] - 1 - length
    starts = rng.integers(0, n, (_RESAMPLES, -(-n // length)))
    above, below = (sums[:, starts + length] - sums[:, starts]).sum(axis=2)
    ratios: Floats = above / np.where(below > 0.0, below, np.nan)
    return ratios


def block_length(values: Floats) -> int:
    """How many neighbours belong together, by Politis and White; at least n^(1/3), at most 3·√n.

    Args:
        values: ``[n]`` in time order, n > 0.
    """
    n = len(values)
    least, most = int(np.ceil(n ** (1 / 3))), int(min(np.ceil(3.0 * n**0.5), n))
    run = max(5, int(np.ceil(np.log10(n) ** 0.5)))
    covariance = _autocovariance(values, min(int(np.ceil(n**0.5)) + run, n - 1))
    if len(covariance) <= run or covariance[0] <= 0.0:
        return least
    small = np.abs(covariance[1:]) < 2.0 * covariance[0] * (np.log10(n) / n) ** 0.5
    quiet = np.convolve(small, np.ones(run), "valid") == run
    last = int(np.argmax(quiet)) if quiet.any() else len(small)
    width = min(2 * max(last, 1), len(small))
    lags = np.arange(1, width + 1)
    weighted = 2.0 * np.minimum(1.0, 2.0 * (1.0 - lags / width)) * covariance[1 : width + 1]
    spectrum = covariance[0] + weighted.sum()
    if spectrum <= 0.0:
        return least
    slope = float((lags * weighted).sum() / spectrum)
    return int(np.clip(np.ceil((1.5 * slope**2 * n) ** (1 / 3)), least, most))


def _autocovariance(values: Floats, lags: int) -> Floats:
    """At lags 0 … ``lags``."""
    centred = values - values.mean()
    n = len(values)
    return np.array([centred[: n - lag] @ centred[lag:] / n for lag in range(lags + 1)])
