"""Calibrate the interval and the probabilities of each symbol while forecasts are served.

The residual of a log price divided by a volatility scale (`model.forecasts.volatility`) has a
nearly constant distribution. Its quantiles start from the model's validation residuals
(`model.forecasts.residuals`) and then follow each symbol:

- *Adaptive conformal inference* (Gibbs and Candès, "Adaptive conformal inference under distribution
  shift", NeurIPS 2021) moves the interval's miscoverage after every candle,
  ``alpha += gamma * (1 - level - missed)``. Over any T candles coverage then differs from the level
  by at most (change of alpha) / (gamma T), whatever the market does, as long as alpha stays inside
  its bounds. Alpha is bounded because alpha <= 0 would mean an infinite interval.
- Each quantile takes a small step, up when the residual lies above and down when below (quantile
  tracking: Angelopoulos, Candès and Tibshirani, "Conformal PID control for time series prediction",
  NeurIPS 2023), so that the probabilities follow as well.

Written by hand: MAPIE's time-series regressor and crepes keep all conformity scores, sort them for
a prediction, and load scikit-learn (150 MB) into the daemon; river's jackknife updates online, but
its interval ignores volatility and it is one Python object per symbol. None of them updates 1,000
symbols within a millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.core.candle import is_price
from model.forecasts.outlook import Outlook
from model.forecasts.quantile_table import interpolate, share_below
from model.forecasts.residuals import LEVELS, Residuals, conformal_quantiles, phase
from model.forecasts.rules import DEFAULT_RULES, Rules
from model.forecasts.volatility import Volatility

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

_MIN_ALPHA: Final = 2.0 * float(LEVELS[0])
_MAX_ALPHA_FACTOR: Final = 3.0
"""Largest alpha as a multiple of the configured miscoverage."""

_QUANTILE_STEP: Final = 0.001
"""Step of a quantile, as a share of the spread."""

_MAX_LOG_REACH: Final = 3.0
"""Bounds lie within a factor of e³ = 20 of the forecast."""

_COLUMNS: Final = np.arange(len(LEVELS), dtype=np.float64)
_Q05, _Q25, _Q75, _Q95 = (int(np.argmin(np.abs(LEVELS - p))) for p in (0.05, 0.25, 0.75, 0.95))
_KIND_RESIDUALS, _KIND_TABLE = 0.0, 1.0
"""Kinds of a saved state: collected residuals, or a table of quantiles."""

_HEAD_BYTES: Final = 3 * 8
"""Kind, n and alpha."""

_SAVED_LEVEL: Final = 0.9
"""Alpha is saved converted to this level, so that a changed level applies at once."""


class Snapshot(NamedTuple):
    """A copy of the state of a `Calibration`; alpha is converted to `_SAVED_LEVEL`."""

    symbols: tuple[str, ...]
    n: NDArray[np.int64]
    alpha: Floats
    table: Floats
    first: Floats

    def encode(self) -> dict[str, bytes]:
        """Encode by symbol for `restore`: kind, n, alpha, then quantiles or residuals."""
        return {symbol: self._encode_one(slot) for slot, symbol in enumerate(self.symbols)}

    @staticmethod
    def learnt(state: bytes) -> int:
        """Number of forecasts that an encoded state has learnt from; -1 if it is invalid."""
        n = (
            float(np.frombuffer(state[:_HEAD_BYTES], "<f8")[1])
            if len(state) >= _HEAD_BYTES
            else np.nan
        )
        return int(n) if np.isfinite(n) else -1

    def _encode_one(self, slot: int) -> bytes:
        n = int(self.n[slot])
        settled = n >= self.first.shape[1]
        values = self.table[slot] if settled else self.first[slot, :n]
        head = (_KIND_TABLE if settled else _KIND_RESIDUALS, n, self.alpha[slot])
        return np.array([*head, *values], dtype="<f8").tobytes()


class Calibration:
    """Calibration of numbered symbols; ``idx`` must not name one twice.

    Call `observe` with a closed candle, then `outlook` for the forecast made from it; the next
    `observe` compares that forecast with the close. No clock and no file is read.
    """

    def __init__(
        self, residuals: Residuals, symbols: Sequence[str], rules: Rules = DEFAULT_RULES
    ) -> None:
        """Start from the residuals of a bundle.

        Args:
            residuals: of the bundle; symbols without any start by collecting their own.
            symbols: ccxt symbols; their order is the index of every other method.
            rules: settings of intervals and probabilities.
        """
        n = len(symbols)
        self._symbols = tuple(symbols)
        self._rules = rules
        self._volatility = Volatility(n)
        self._weights = np.array(residuals.weights)
        self._season = np.array(residuals.season)
        # Miscoverage of each symbol, residuals learnt from, and quantiles of the scaled residual.
        self._alpha = np.full(n, 1.0 - rules.level)
        self._n = np.zeros(n, dtype=np.int64)
        self._table = np.zeros((n, len(LEVELS)))
        # The first residuals of symbols that the bundle has none of.
        self._first = np.zeros((n, rules.min_n))
        # The forecast whose candle is still open: log price, scale, scaled lower and upper bound.
        self._has_pending = np.zeros(n, dtype=np.bool_)
        self._pending = np.zeros((n, 4))
        for slot, symbol in enumerate(symbols):
            entry = residuals.by_symbol.get(symbol)
            if entry is not None and entry.n >= rules.min_n:
                self._n[slot], self._table[slot] = entry

    def prime(self, idx: Index, ohlcv: Floats) -> None:
        """Restart the volatility from windows ``(k, rows, 5)`` and drop pending forecasts.

        Needed where candles were missed or revised.
        """
        self._volatility.prime(idx, ohlcv)
        self._has_pending[idx] = False

    def observe(self, idx: Index, ohlcv: Floats) -> None:
        """Learn from the next closed candle of each symbol, shape ``(k, 5)``."""
        self._learn_from_closes(*_select(self._has_pending.take(idx), idx, ohlcv[:, 3]))
        self._volatility.observe(idx, ohlcv)
        self._has_pending[idx] = False

    def outlook(
        self, idx: Index, predicted: Floats, last_close: Floats, open_ms: NDArray[np.int64]
    ) -> Outlook:
        """Compute interval and probabilities of forecasts, and keep them as pending.

        Args:
            idx: positions of the symbols, shape ``(k,)``.
            predicted: forecasts of the next close, shape ``(k,)``; other values than prices get no
                outlook.
            last_close: last closes, above 0, shape ``(k,)``.
            open_ms: opening times of the candles that are forecast, Unix milliseconds, ``(k,)``.
        """
        priced = is_price(predicted)
        learnt = self._n.take(idx)
        known = priced & (learnt >= self._rules.min_n)
        centre = np.log(np.where(priced, predicted, last_close))
        season = self._season[phase(open_ms, len(self._season))]
        with np.errstate(over="ignore"):
            scale = np.exp(self._volatility.features(idx) @ self._weights + season)
        table = self._table.take(idx, axis=0)
        bounds = self._scaled_bounds(idx, table)
        self._has_pending[idx] = priced
        self._pending[idx] = np.array([centre, scale, *bounds]).T
        # A scale may be 0 or infinite; `Outlook.sound` then rejects the result.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            reach = np.minimum(np.maximum(bounds * scale, -_MAX_LOG_REACH), _MAX_LOG_REACH)
            lower, upper = np.exp(centre + reach)
            threshold = self._threshold(table, scale)
            ends = np.log1p(np.array([-threshold, threshold])) - (centre - np.log(last_close))
            below, up_to = share_below(table, ends / scale)
        # exp(log(x)) may differ from x in the last digit.
        lower, upper = np.minimum(lower, predicted), np.maximum(upper, predicted)
        neutral = np.maximum(up_to - below, 0.0)
        columns = np.array([lower, upper, threshold, below, neutral, 1.0 - up_to])
        return Outlook(known, learnt, self._rules, *np.where(known, columns, np.nan))

    def forget(self, idx: Index) -> None:
        """Drop the pending forecasts of these symbols, which were not published."""
        self._has_pending[idx] = False

    def _scaled_bounds(self, idx: Index, table: Floats) -> Floats:
        """The quantiles between which a residual lies with probability 1 - alpha, ``(2, k)``.

        The bounds always include the forecast.
        """
        place = np.interp(0.5 * self._alpha.take(idx), LEVELS, _COLUMNS)
        bounds = interpolate(table, np.array([place, _COLUMNS[-1] - place]))
        np.minimum(bounds[0], 0.0, out=bounds[0])
        np.maximum(bounds[1], 0.0, out=bounds[1])
        return bounds

    def _threshold(self, table: Floats, scale: Floats) -> Floats:
        if self._rules.threshold is not None:
            return np.full(len(scale), self._rules.threshold)
        half_width = 0.5 * (table[:, _Q75] - table[:, _Q25])
        return np.minimum(self._rules.multiple * half_width * scale, 0.5)

    def _learn_from_closes(self, idx: Index, close: Floats) -> None:
        """Learn from the closes of the candles that pending forecasts were about."""
        centre, scale, lower, upper = self._pending.take(idx, axis=0).T
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            residual = (np.log(close) - centre) / scale
        finite = np.isfinite(residual)
        if not finite.all():
            idx, residual, lower, upper = _select(finite, idx, residual, lower, upper)
        missed = (residual < lower) | (residual > upper)
        n = self._n.take(idx)
        known = n >= self._rules.min_n
        self._adapt_quantiles(*_select(known, idx, residual, missed))
        if not known.all():
            self._collect_residuals(idx[~known], residual[~known])
        self._n[idx] = n + 1

    def _adapt_quantiles(self, idx: Index, residual: Floats, missed: NDArray[np.bool_]) -> None:
        target = 1.0 - self._rules.level
        alpha = self._alpha.take(idx) + self._rules.gamma * (target - missed)
        alpha = np.minimum(np.maximum(alpha, _MIN_ALPHA), _MAX_ALPHA_FACTOR * target)
        table = self._table.take(idx, axis=0)
        # Includes the residual itself: after a standstill the spread is 0 and would stay 0.
        spread = np.maximum(table[:, _Q95] - table[:, _Q05], np.abs(residual))
        # The further alpha had to move, the more the quantiles are wrong.
        step = _QUANTILE_STEP * spread * target / alpha
        table += step[:, None] * (LEVELS - (residual[:, None] < table))
        self._alpha[idx] = alpha
        self._table[idx] = np.maximum.accumulate(table, axis=1)

    def _collect_residuals(self, idx: Index, residual: Floats) -> None:
        """Keep the first residuals of symbols that the bundle has none of."""
        self._first[idx, self._n[idx]] = residual
        for slot in idx[self._n[idx] == self._rules.min_n - 1]:
            self._table[slot] = conformal_quantiles(self._first[slot])

    def snapshot(self) -> Snapshot:
        """Copy the state; the copy may be encoded in another thread."""
        return Snapshot(
            self._symbols,
            self._n.copy(),
            self._alpha * ((1.0 - _SAVED_LEVEL) / (1.0 - self._rules.level)),
            self._table.copy(),
            self._first.copy(),
        )

    def adopt(self, other: Calibration) -> None:
        """Copy the state of the symbols that another calibration of the same bundle has too."""
        theirs = {symbol: slot for slot, symbol in enumerate(other._symbols)}
        pairs = [(slot, theirs[s]) for slot, s in enumerate(self._symbols) if s in theirs]
        mine, their = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        for name in ("n", "alpha", "table", "first", "has_pending", "pending"):
            getattr(self, f"_{name}")[mine] = getattr(other, f"_{name}")[their]

    def restore(self, states: Mapping[str, bytes]) -> list[str]:
        """Restore the states that an earlier process saved with the same bundle.

        Returns:
            Symbols whose state was not used: damaged, or saved with other rules.
        """
        refused = []
        for slot, symbol in enumerate(self._symbols):
            if symbol in states and not self._restore_one(slot, states[symbol]):
                refused.append(symbol)
        return refused

    def _restore_one(self, slot: int, state: bytes) -> bool:
        if len(state) % 8 or len(state) < _HEAD_BYTES:
            return False
        (kind, n, alpha), values = np.split(np.frombuffer(state, "<f8"), [3])
        fits = np.isfinite([kind, n, alpha]).all() and np.isfinite(values).all() and 0 <= n < 2**53
        gathered = kind == _KIND_RESIDUALS and len(values) == n < self._rules.min_n
        settled = kind == _KIND_TABLE and len(values) == len(LEVELS) and n >= self._rules.min_n
        if not fits or not (gathered or (settled and np.all(np.diff(values) >= 0.0))):
            return False
        self._n[slot] = int(n)
        target = 1.0 - self._rules.level
        alpha *= target / (1.0 - _SAVED_LEVEL)
        self._alpha[slot] = np.clip(alpha, _MIN_ALPHA, _MAX_ALPHA_FACTOR * target)
        if settled:
            self._table[slot] = values
        else:
            self._first[slot, : len(values)] = values
        return True


def _select(chosen: NDArray[np.bool_], *columns: NDArray[Any]) -> Sequence[NDArray[Any]]:
    """Select from each column; if all are chosen, as nearly always, nothing is copied."""
    return columns if chosen.all() else [column[chosen] for column in columns]
