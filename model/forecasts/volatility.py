"""Estimate how far the next candle will move, in O(1) per candle for all symbols.

The direction of a move is hardly predictable, its size is: volatility clusters. Four running means
measure it, of range and of volume, each over a short and a long span. The scale is log-linear in
them and in the position within the hour, at whose start markets move more,
``exp(w · features + season)``, with weights fitted once on training candles
(`model.forecasts.residuals`). The weights of the ranges sum to less than 1, which shrinks the scale
towards the mean; that gains more than any further span.

Written by hand: a fitted GARCH model needs a solver per symbol and is not updated in O(1).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

SPANS: Final = (4, 32)
"""Spans of the exponential means, in candles."""

WARMUP: Final = math.ceil(math.log(1e-9) / math.log(1.0 - 2.0 / (max(SPANS) + 1)))
"""Candles after which earlier ones weigh less than 1e-9."""

N_FEATURES: Final = 4
"""Log of the short and of the long mean of the range, log of short ÷ long mean of the volume, and
the excess of the first over the second, since a burst is more informative than a lull."""

_ALPHAS: Final = np.array([2.0 / (span + 1) for span in SPANS])
_ALL_ALPHAS: Final = np.tile(_ALPHAS, 2)
_MIN_RANGE: Final = 1e-7
_MAX_RATIO: Final = 100.0


class Volatility:
    """The running means of ``n_symbols`` symbols, addressed by position.

    Candles are rows ``open, high, low, close, volume``.
    """

    def __init__(self, n_symbols: int) -> None:
        # Means of the range for each span, then of the volume.
        self._means = np.zeros((n_symbols, 2 * len(SPANS)))

    def prime(self, idx: Index, ohlcv: Floats) -> None:
        """Restart from whole windows.

        Args:
            idx: positions of the symbols, shape ``(k,)``.
            ohlcv: their candles, shape ``(k, rows, 5)``, newest last; with `WARMUP` rows or
                more the result does not depend on where the window begins.
        """
        age = np.arange(ohlcv.shape[1])[::-1, None]
        weights = (1.0 - _ALPHAS) ** age
        weights /= weights.sum(axis=0)
        ranges, volumes = _log_range(ohlcv) @ weights, ohlcv[..., 4] @ weights
        self._means[idx] = np.concatenate([ranges, volumes], axis=1)

    def observe(self, idx: Index, ohlcv: Floats) -> None:
        """Add one closed candle per symbol, shape ``(k, 5)``; ``idx`` holds no symbol twice."""
        ranges, volumes = _log_range(ohlcv), ohlcv[:, 4]
        means = self._means.take(idx, axis=0)
        seen = np.array([ranges] * len(SPANS) + [volumes] * len(SPANS)).T
        means += _ALL_ALPHAS * (seen - means)
        self._means[idx] = means

    def features(self, idx: Index) -> Floats:
        """Features of the candles so far, shape ``(k, N_FEATURES)``; always finite."""
        means = self._means.take(idx, axis=0)
        return _features(means[:, : len(SPANS)], means[:, len(SPANS) :])


def history_features(ohlcv: Floats) -> Floats:
    """Features after every candle of one symbol, for fitting; the first `WARMUP` have not settled.

    Args:
        ohlcv: shape ``(rows, 5)``.

    Returns:
        Shape ``(rows, N_FEATURES)``.
    """
    import pandas as pd

    ranges, volumes = (
        np.column_stack([pd.Series(x).ewm(span=span, adjust=True).mean() for span in SPANS])
        for x in (_log_range(ohlcv), ohlcv[:, 4])
    )
    return _features(ranges, volumes)


def _log_range(ohlcv: Floats) -> Any:  # noqa: ANN401 - one dimension less than the argument
    return np.log(ohlcv[..., 1] / ohlcv[..., 2])


def _features(ranges: Floats, volumes: Floats) -> Floats:
    features: Floats = np.empty((len(ranges), N_FEATURES))
    # A market without trades has neither range nor volume; the scale must stay finite.
    np.log(ranges + _MIN_RANGE, out=features[:, :2])
    short, long = volumes.T
    ratio = np.ones_like(long)
    np.divide(short, long, out=ratio, where=long > 0.0)
    ratio = np.minimum(np.maximum(ratio, 1.0 / _MAX_RATIO), _MAX_RATIO)
    np.log(ratio, out=features[:, 2])
    np.maximum(features[:, 0] - features[:, 1], 0.0, out=features[:, 3])
    return features
