"""Compute features one candle at a time, for many symbols at once.

Written by hand although `model.features.batch` uses TA-Lib: TA-Lib's streaming functions take the
whole series of one symbol for its newest value. One candle of 1,000 symbols takes 20 ms with them
and 0.3 ms here. The tests compare both to TA-Lib's values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from model.features.definitions import (
    BAND_FEATURES,
    EMA_PERIOD,
    FEATURES,
    FLAT_BAND,
    MACD_FEATURES,
    OHLCV,
    SMA_PERIODS,
    VOLUME_FEATURES,
    VOLUME_SMA_PERIOD,
    ZERO_VOLUME,
    Indicators,
)
from model.features.recursive_means import (
    Average,
    FloatArray,
    IntArray,
    Recursions,
    Ring,
    mean_of_each,
)

Columns = dict[str, Callable[[], FloatArray]]
"""How to compute each feature of a group; only the requested ones are computed."""

_ZERO_MOVE: Final = 1e-14
"""TA-Lib's own threshold: a sum of gains and losses below it counts as zero."""

_CANDLE_FEATURES: Final = frozenset(
    {*OHLCV, "hl_range", "price_change", "volume_change", "log_return"},
)
_MEAN_FEATURES: Final = MACD_FEATURES | {"rsi_14", "ema_10"}


class _Step(NamedTuple):
    """One candle of k symbols: what came in, what came out, and what `commit` would keep."""

    idx: IntArray
    row: IntArray
    ripe: bool
    candles: FloatArray
    before: FloatArray
    means: FloatArray
    signal: FloatArray | None


class FeatureBank:
    """Features of many symbols, candle by candle.

    Args:
        names: feature names, each from `FEATURES`; their order is the order of the columns.
        indicators: the periods.
        n_symbols: symbols are numbered 0 … n_symbols - 1; ``idx`` must not name one twice.

    Raises:
        ValueError: an unknown or repeated name, or no name.

    Example:
        >>> bank = FeatureBank(("close", "log_return"), Indicators(), n_symbols=1)
        >>> btc = np.array([0])
        >>> bank.commit(btc, np.array([[1.0, 3.0, 1.0, 2.0, 5.0]]))
        array([[ 2., nan]])
        >>> bank.peek(btc, np.array([[2.0, 2.0, 2.0, 2.0, 1.0]]))
        array([[2., 0.]])
    """

    def __init__(self, names: Sequence[str], indicators: Indicators, n_symbols: int) -> None:
        unknown = [name for name in names if name not in FEATURES]
        if unknown or not names or len(set(names)) != len(names):
            msg = f"features must be different names out of {list(FEATURES)}, not {list(names)}"
            raise ValueError(msg)
        self.names: Final = tuple(names)
        self.indicators: Final = indicators
        first = indicators.first_rows()
        self._first = np.array([first[name] for name in names])
        self._rows = np.zeros(n_symbols, np.int64)
        self._previous = np.full((2, n_symbols), np.nan)
        p = indicators
        rise_or_fall = Average(1, p.rsi_period, 1.0 / p.rsi_period)
        fast = Average(p.macd_slow - p.macd_fast, p.macd_fast, 2.0 / (p.macd_fast + 1))
        slow = Average(0, p.macd_slow, 2.0 / (p.macd_slow + 1))
        ema = Average(0, EMA_PERIOD, 2.0 / (EMA_PERIOD + 1))
        signal = Average(p.macd_slow - 1, p.macd_signal, 2.0 / (p.macd_signal + 1))
        self._means = Recursions((rise_or_fall, rise_or_fall, fast, slow, ema), n_symbols)
        self._signal = Recursions((signal,), n_symbols)
        self._band = Ring(p.bb_period, n_symbols)
        self._volume = Ring(VOLUME_SMA_PERIOD, n_symbols)
        self._averages = {
            name: Ring(period, n_symbols) for name, period in SMA_PERIODS.items() if name in names
        }
        self._ripe_row = max(self._means.last_row, self._signal.last_row, *first.values())
        wanted = set(names)
        self._with_signal = not wanted.isdisjoint({"macd_signal", "macd_diff"})
        self._groups = [group for group, gives in self._all_groups() if wanted & gives]

    def _all_groups(self) -> tuple[tuple[Callable[[_Step], Columns], frozenset[str]], ...]:
        return (
            (self._candle_columns, _CANDLE_FEATURES),
            (self._mean_columns, _MEAN_FEATURES),
            (self._band_columns, BAND_FEATURES),
            (self._volume_columns, VOLUME_FEATURES),
            (self._sma_columns, frozenset(SMA_PERIODS)),
        )

    def prime(self, idx: IntArray, ohlcv: FloatArray) -> FloatArray:
        """Forget what is known of some symbols and run their history.

        Args:
            idx: ``[k]`` symbol numbers.
            ohlcv: ``[k, rows, 5]`` closed candles, oldest first.

        Returns:
            ``[k, rows, F]`` features; NaN in the rows before a feature's first.
        """
        return np.stack(list(self.priming(idx, ohlcv)), axis=1)

    def priming(self, idx: IntArray, ohlcv: FloatArray) -> Iterator[FloatArray]:
        """Do as `prime` does, a row whenever the next one is asked for: ``[k, F]`` features."""
        self._rows[idx] = 0
        self._previous[:, idx] = np.nan
        self._means.state[idx] = 0.0
        self._signal.state[idx] = 0.0
        for row in range(ohlcv.shape[1]):
            yield self.commit(idx, ohlcv[:, row])

    def commit(self, idx: IntArray, ohlcv: FloatArray) -> FloatArray:
        """Take one closed candle of each of k symbols, ``[k, 5]``.

        Returns:
            ``[k, F]`` features.
        """
        step = self._advance(idx, ohlcv)
        features = self._features(step)
        close, volume = step.candles[3:]
        self._previous[:, idx] = step.candles[3:]
        self._means.state[idx] = step.means
        if step.signal is not None:
            self._signal.state[idx] = step.signal
        self._volume.store(idx, step.row, volume)
        for ring in (self._band, *self._averages.values()):
            ring.store(idx, step.row, close)
        self._rows[idx] = step.row + 1
        return features

    def peek(self, idx: IntArray, ohlcv: FloatArray) -> FloatArray:
        """The features `commit` would return, leaving no trace: for a candle that is forming."""
        return self._features(self._advance(idx, ohlcv))

    def _advance(self, idx: IntArray, ohlcv: FloatArray) -> _Step:
        row = self._rows.take(idx)
        ripe = bool((row >= self._ripe_row).all())
        # One contiguous line per column: numpy may round strided and contiguous input differently.
        candles = np.ascontiguousarray(ohlcv.T, dtype=np.float64)
        before = self._previous.take(idx, axis=1)
        move = candles[3] - before[0]
        values = np.empty((idx.size, 5))
        np.maximum(move, 0.0, out=values[:, 0])
        np.maximum(-move, 0.0, out=values[:, 1])
        values[:, 2:] = candles[3][:, None]
        if not ripe:
            # The first candle has no move: its NaN times a weight of 0 must not reach the state.
            values[row == 0, :2] = 0.0
        young = None if ripe else row
        means = self._means.advance(idx, young, values)
        signal = None
        if self._with_signal:
            signal = self._signal.advance(idx, young, means[:, 2:3] - means[:, 3:4])
        return _Step(idx, row, ripe, candles, before, means, signal)

    def _features(self, step: _Step) -> FloatArray:
        columns: Columns = {}
        for group in self._groups:
            columns |= group(step)
        features = np.array([columns[name]() for name in self.names]).T
        if not step.ripe:
            features[step.row[:, None] < self._first] = np.nan
        return features

    def _candle_columns(self, step: _Step) -> Columns:
        opened, high, low, close, volume = step.candles
        close_before, volume_before = step.before
        return {
            "open": lambda: opened,
            "high": lambda: high,
            "low": lambda: low,
            "close": lambda: close,
            "volume": lambda: volume,
            "hl_range": lambda: (high - low) / close,
            "price_change": lambda: close / close_before - 1.0,
            "volume_change": lambda: _ratio(volume - volume_before, volume_before, ZERO_VOLUME),
            "log_return": lambda: np.log(close / close_before),
        }

    def _mean_columns(self, step: _Step) -> Columns:
        gain, loss, fast, slow, ema = step.means.T
        macd, close = fast - slow, step.candles[3]
        columns: Columns = {
            "rsi_14": lambda: 100.0 * _ratio(gain, gain + loss, _ZERO_MOVE),
            "macd": lambda: macd,
            "macd_rel": lambda: macd / close,
            "ema_10": lambda: ema,
        }
        if step.signal is not None:
            signal = step.signal[:, 0]
            columns |= {"macd_signal": lambda: signal, "macd_diff": lambda: macd - signal}
        return columns

    def _band_columns(self, step: _Step) -> Columns:
        close = step.candles[3]
        window = self._band.advance(step.idx, step.row, close)
        middle = mean_of_each(window)
        window -= middle[:, None]
        half = self.indicators.bb_std * np.sqrt(mean_of_each(window * window))
        width = 2.0 * half
        return {
            "bb_upper": lambda: middle + half,
            "bb_middle": lambda: middle,
            "bb_lower": lambda: middle - half,
            "bb_width": lambda: width / middle,
            "bb_position": lambda: _ratio(close - middle, width, FLAT_BAND * middle),
        }

    def _volume_columns(self, step: _Step) -> Columns:
        volume = step.candles[4]
        mean = mean_of_each(self._volume.advance(step.idx, step.row, volume))
        ratio = _ratio(volume, mean, ZERO_VOLUME)
        return {
            "volume_sma_20": lambda: mean,
            "volume_ratio": lambda: ratio,
            "log_volume_ratio": lambda: np.log1p(ratio),
        }

    def _sma_columns(self, step: _Step) -> Columns:
        close = step.candles[3]

        def mean(ring: Ring) -> FloatArray:
            return mean_of_each(ring.advance(step.idx, step.row, close))

        return {name: partial(mean, ring) for name, ring in self._averages.items()}


def _ratio(above: FloatArray, below: FloatArray, zero: float | FloatArray) -> FloatArray:
    """``above / below``, and 0 where ``below`` is under ``zero``."""
    return np.divide(above, below, out=np.zeros(len(above)), where=~(below < zero))
