"""Features one candle at a time, vectorized over symbols.

Row *t* depends on the candles up to *t* and on nothing else. ``c`` is the close, ``v`` the
volume, ``'`` the candle before. Periods stand for the fields of `Indicators`; ``macd row`` is
macd_slow + macd_signal - 2.

    name                formula                                                    first row
    open … volume       the candle's own value                                     0
    rsi_14              Wilder's relative strength index of c, 0 … 100             rsi_period
    macd                EMA(macd_fast) - EMA(macd_slow) of c                       macd row
    macd_signal         EMA(macd_signal) of macd                                   macd row
    macd_diff           macd - macd_signal                                         macd row
    bb_middle           mean of the last bb_period closes                          bb_period - 1
    bb_upper, bb_lower  bb_middle ± bb_std x their population deviation            bb_period - 1
    bb_width            (bb_upper - bb_lower) / bb_middle                          bb_period - 1
    sma_10, sma_30      mean of the last 10, 30 closes                             9, 29
    ema_10              EMA(10) of c                                               9
    volume_sma_20       mean of the last 20 volumes                                19
    price_change        c / c' - 1                                                 1
    volume_change       v / v' - 1, 0 where v' is zero                             1
    hl_range            (high - low) / c                                           0
    volume_ratio        v / volume_sma_20, 0 where that is zero                    19
    log_return          ln(c / c')                                                 1
    bb_position         (c - bb_middle) / (bb_upper - bb_lower), 0 on a flat band  bb_period - 1
    macd_rel            macd / c                                                   macd row
    log_volume_ratio    ln(1 + volume_ratio)                                       19

A volume below 1e-12 counts as zero, a band narrower than 1e-9 of its middle as flat. Column names
stay when a period setting changes. Recursive indicators are seeded as TA-Lib (ta-lib.org) seeds
them: EMA with the mean of its first values, RSI with the mean of the first rsi_period gains and
losses, and both EMAs of the MACD at the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from model.features.recursive_means import (
    Average,
    FloatArray,
    IntArray,
    Recursions,
    Ring,
    mean_of_each,
)

Columns = dict[str, Callable[[], FloatArray]]
"""How each feature is computed; those that nobody asked for are not."""

CLOSE_FEATURES: Final = ("close", "volume", "rsi_14", "macd", "bb_upper", "bb_lower")
LOG_RETURN_FEATURES: Final = (
    "log_return",
    "hl_range",
    "bb_position",
    "macd_rel",
    "rsi_14",
    "log_volume_ratio",
)
OHLCV: Final = ("open", "high", "low", "close", "volume")

_SEED_WEIGHT: Final = 1e-9
_ZERO_VOLUME: Final = 1e-12
_FLAT_BAND: Final = 1e-9
_ZERO_MOVE: Final = 1e-14
"""TA-Lib's own threshold under which the sum of gains and losses counts as none."""

_EMA: Final = 10
_VOLUME_SMA: Final = 20
_SMA: Final = {"sma_10": 10, "sma_30": 30}
_CANDLE: Final = frozenset(
    {*OHLCV, "hl_range", "price_change", "volume_change", "log_return"},
)
_MACD: Final = frozenset({"macd", "macd_signal", "macd_diff", "macd_rel"})
_MEAN: Final = _MACD | {"rsi_14", "ema_10"}
_BAND: Final = frozenset({"bb_upper", "bb_middle", "bb_lower", "bb_width", "bb_position"})
_VOLUME: Final = frozenset({"volume_sma_20", "volume_ratio", "log_volume_ratio"})


@dataclass(frozen=True)
class Indicators:
    """Periods of the indicators, in candles; ``bb_std`` in standard deviations.

    Raises:
        ValueError: a period below 2 (macd_signal: 1), or a fast period not below the slow one.
    """

    rsi_period: int = 14
    macd_fast: int = 12
    macd_slow: int = 26
    macd_signal: int = 9
    bb_period: int = 20
    bb_std: float = 2.0

    def __post_init__(self) -> None:
        """Refuse periods without a meaning."""
        if min(self.rsi_period, self.macd_fast, self.bb_period) < 2 or self.macd_signal < 1:  # noqa: PLR2004
            msg = f"indicator periods must be at least 2 (macd_signal: 1): {self}"
            raise ValueError(msg)
        if self.macd_fast >= self.macd_slow:
            msg = f"macd_fast ({self.macd_fast}) must be below macd_slow ({self.macd_slow})"
            raise ValueError(msg)

    @property
    def warmup(self) -> int:
        """Rows after which no seed weighs 1e-9 or more in any feature.

        After *m* rows a seed still weighs (1 - 1/n)^m in Wilder's average and (1 - 2/(n+1))^m in an
        EMA. The signal line is a cascade: it forgets its own seed and averages what is left of the
        slow EMA's, s(m) = b·s(m-1) + (1-b)·w(m), with b = 1 - 2/(macd_signal+1), w the slow EMA's
        weight and s(0) = 1.
        """
        signal, slow = 1.0 - 2.0 / (self.macd_signal + 1), 1.0 - 2.0 / (self.macd_slow + 1)
        left_slow, left, rows = 1.0, 1.0, 0
        while max(left_slow, left) >= _SEED_WEIGHT:
            left_slow *= slow
            left = signal * left + (1.0 - signal) * left_slow
            rows += 1
        return max(
            self.macd_slow + self.macd_signal - 1 + rows,
            self.rsi_period + 1 + _rows_to_forget(1.0 - 1.0 / self.rsi_period),
            _EMA + _rows_to_forget(1.0 - 2.0 / (_EMA + 1)),
            self.bb_period,
            *_SMA.values(),
        )

    def first_rows(self) -> Mapping[str, int]:
        """The first row (0-based) at which each feature is a number."""
        rows = dict.fromkeys((*OHLCV, "hl_range"), 0)
        rows |= dict.fromkeys(("price_change", "volume_change", "log_return"), 1)
        rows |= {"rsi_14": self.rsi_period, "ema_10": _EMA - 1}
        rows |= {name: period - 1 for name, period in _SMA.items()}
        rows |= dict.fromkeys(sorted(_MACD), self.macd_slow + self.macd_signal - 2)
        rows |= dict.fromkeys(sorted(_BAND), self.bb_period - 1)
        rows |= dict.fromkeys(sorted(_VOLUME), _VOLUME_SMA - 1)
        return rows


FEATURES: Final = tuple(Indicators().first_rows())
"""Every feature name known."""


def _rows_to_forget(decay: float) -> int:
    """The least m with decay**m < 1e-9, for 0 < decay < 1."""
    return int(np.ceil(np.log(_SEED_WEIGHT) / np.log(decay)))


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
        ema = Average(0, _EMA, 2.0 / (_EMA + 1))
        signal = Average(p.macd_slow - 1, p.macd_signal, 2.0 / (p.macd_signal + 1))
        self._means = Recursions((rise_or_fall, rise_or_fall, fast, slow, ema), n_symbols)
        self._signal = Recursions((signal,), n_symbols)
        self._band = Ring(p.bb_period, n_symbols)
        self._volume = Ring(_VOLUME_SMA, n_symbols)
        self._averages = {
            name: Ring(period, n_symbols) for name, period in _SMA.items() if name in names
        }
        self._ripe_row = max(self._means.last_row, self._signal.last_row, *first.values())
        wanted = set(names)
        self._with_signal = not wanted.isdisjoint({"macd_signal", "macd_diff"})
        self._groups = [group for group, gives in self._all_groups() if wanted & gives]

    def _all_groups(self) -> tuple[tuple[Callable[[_Step], Columns], frozenset[str]], ...]:
        return (
            (self._candle_columns, _CANDLE),
            (self._mean_columns, _MEAN),
            (self._band_columns, _BAND),
            (self._volume_columns, _VOLUME),
            (self._sma_columns, frozenset(_SMA)),
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
            "volume_change": lambda: _ratio(volume - volume_before, volume_before, _ZERO_VOLUME),
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
            "bb_position": lambda: _ratio(close - middle, width, _FLAT_BAND * middle),
        }

    def _volume_columns(self, step: _Step) -> Columns:
        volume = step.candles[4]
        mean = mean_of_each(self._volume.advance(step.idx, step.row, volume))
        ratio = _ratio(volume, mean, _ZERO_VOLUME)
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
