"""Intervals and probabilities around a forecast, held to what they promise while they are served.

The residual of a log price divided by a volatility scale (`model.volatility`) has a distribution
that hardly changes. Its quantiles start from the model's validation residuals (`model.residuals`)
and then follow each symbol:

- *Adaptive conformal inference* (Gibbs and Candès, "Adaptive conformal inference under distribution
  shift", NeurIPS 2021) moves the interval's miscoverage after every candle,
  ``alpha += gamma * (1 - level - missed)``. Over any T candles coverage then differs from the level
  by at most (change of alpha) / (gamma T), whatever the market does, as long as alpha stays inside
  its bounds. Bounds there are, since alpha <= 0 would mean an infinite interval.
- The quantiles take a small step each, up when the residual lies above and down when below
  (quantile tracking: Angelopoulos, Candès and Tibshirani, "Conformal PID control for time series
  prediction", NeurIPS 2023), so that the probabilities follow as well.

Why not a library: MAPIE's time-series regressor and crepes keep all conformity scores, sort them
for a prediction, and bring scikit-learn into the serving process; river's jackknife updates online,
but its interval ignores volatility and it is one Python object per symbol. None updates 1,000
symbols in the millisecond that there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.core.candle import is_price
from model.forecasts.forecast import Interval, Probabilities
from model.forecasts.residuals import LEVELS, Residuals, conformal_quantiles
from model.forecasts.rules import DEFAULT_RULES, Rules
from model.forecasts.volatility import Volatility, phase

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

_LEAST_ALPHA: Final = 2.0 * float(LEVELS[0])
_MOST_TIMES: Final = 3.0
_STEP: Final = 0.001
_MOST_LOG: Final = 3.0
"""No bound is further than a factor of 20 from the forecast."""

_PLACES: Final = np.arange(len(LEVELS), dtype=np.float64)
_Q05, _Q25, _Q75, _Q95 = (int(np.argmin(np.abs(LEVELS - p))) for p in (0.05, 0.25, 0.75, 0.95))
_RAW, _TABLE = 0.0, 1.0
_HEAD: Final = 3 * 8

_LEVEL: Final = 0.9
"""Miscoverage is saved as it would be at this level, so that another one is held at once."""


class Outlook(NamedTuple):
    """What may happen around k forecasts; NaN where ``known`` is False.

    Attributes:
        known: whether there is enough evidence, ``[k]``.
        learnt: from how many forecasts and closes, ``[k]``.
        rules: what was asked for.
        lower: price, at most the forecast, above 0, ``[k]``.
        upper: price, at least the forecast, finite, ``[k]``.
        threshold: return, ``[k]``.
        short: probability of a return below ``-threshold``, ``[k]``.
        neutral: of one between, ``[k]``.
        long: of one above ``threshold``; the three sum to 1, ``[k]``.
    """

    known: NDArray[np.bool_]
    learnt: NDArray[np.int64]
    rules: Rules
    lower: Floats
    upper: Floats
    threshold: Floats
    short: Floats
    neutral: Floats
    long: Floats

    def sound(self) -> NDArray[np.bool_]:
        """Around which forecasts nothing is known, or nothing but what can be true, ``[k]``."""
        priced = (self.lower > 0.0) & (self.lower <= self.upper) & (self.upper < np.inf)
        shares = np.array([self.short, self.neutral, self.long])
        fine: NDArray[np.bool_] = (
            priced
            & (self.threshold >= 0.0)
            & (self.threshold < np.inf)
            & ((shares >= 0.0) & (shares <= 1.0)).all(axis=0)
        )
        return ~self.known | fine

    def part(self, which: slice | list[int]) -> Outlook:
        """Around some of the forecasts."""
        columns = (column[which] for column in self[3:])
        return Outlook(self.known[which], self.learnt[which], self.rules, *columns)

    def messages(self) -> list[tuple[Interval, Probabilities] | tuple[None, None]]:
        """As they are published, one pair per forecast."""
        columns = (column.tolist() for column in (self.known, *self[3:]))
        level = self.rules.level
        return [
            (Interval(level, lower, upper), Probabilities(*chances)) if known else (None, None)
            for known, lower, upper, *chances in zip(*columns, strict=True)
        ]


class Snapshot(NamedTuple):
    """What has been learnt at one moment, as `Calibration` holds it; alpha as if of `_LEVEL`."""

    symbols: tuple[str, ...]
    n: NDArray[np.int64]
    alpha: Floats
    table: Floats
    first: Floats

    def encode(self) -> dict[str, bytes]:
        """For `Calibration.restore`, by symbol: kind, n, alpha, then quantiles or residuals."""
        return {symbol: self._encode_one(slot) for slot, symbol in enumerate(self.symbols)}

    @staticmethod
    def learnt(state: bytes) -> int:
        """From how many forecasts an encoded state has learnt; -1 where it is none."""
        n = float(np.frombuffer(state[:_HEAD], "<f8")[1]) if len(state) >= _HEAD else np.nan
        return int(n) if np.isfinite(n) else -1

    def _encode_one(self, slot: int) -> bytes:
        n = int(self.n[slot])
        settled = n >= self.first.shape[1]
        values = self.table[slot] if settled else self.first[slot, :n]
        head = (_TABLE if settled else _RAW, n, self.alpha[slot])
        return np.array([*head, *values], dtype="<f8").tobytes()


class Calibration:
    """The residuals of every symbol, addressed by position; ``idx`` never holds one twice.

    `observe` a closed candle, then take the `outlook` of the forecast made from it; the next
    `observe` holds that against what came. Nothing here reads a clock or a file.
    """

    def __init__(
        self, residuals: Residuals, symbols: Sequence[str], rules: Rules = DEFAULT_RULES
    ) -> None:
        """Start from a bundle's residuals.

        Args:
            residuals: of the bundle; symbols without gather evidence of their own first.
            symbols: ccxt symbols; their order is the index of every other method.
            rules: what is asked for.
        """
        n = len(symbols)
        self._symbols = tuple(symbols)
        self._rules = rules
        self._volatility = Volatility(n)
        self._weights = np.array(residuals.weights)
        self._season = np.array(residuals.season)
        self._alpha = np.full(n, 1.0 - rules.level)
        self._n = np.zeros(n, dtype=np.int64)
        self._table = np.zeros((n, len(LEVELS)))
        self._first = np.zeros((n, rules.min_n))
        # The forecast that waits for its candle: log price, scale, scaled lower and upper bound.
        self._waits = np.zeros(n, dtype=np.bool_)
        self._waiting = np.zeros((n, 4))
        for slot, symbol in enumerate(symbols):
            entry = residuals.by_symbol.get(symbol)
            if entry is not None and entry.n >= rules.min_n:
                self._n[slot], self._table[slot] = entry

    def prime(self, idx: Index, ohlcv: Floats) -> None:
        """Start the volatility over from windows ``(k, rows, 5)``; waiting forecasts are dropped.

        A window is only begun anew where candles were missed or revised.
        """
        self._volatility.prime(idx, ohlcv)
        self._waits[idx] = False

    def observe(self, idx: Index, ohlcv: Floats) -> None:
        """Take in each symbol's next closed candle, shape ``(k, 5)``."""
        self._realise(*_those(self._waits.take(idx), idx, ohlcv[:, 3]))
        self._volatility.observe(idx, ohlcv)
        self._waits[idx] = False

    def outlook(
        self, idx: Index, predicted: Floats, last_close: Floats, open_ms: NDArray[np.int64]
    ) -> Outlook:
        """What may become of the next close.

        Args:
            idx: positions of the symbols, shape ``(k,)``.
            predicted: forecasts of the next close, shape ``(k,)``; one that is not a price has no
                outlook.
            last_close: closes that they start from, above 0, shape ``(k,)``.
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
        self._waits[idx] = priced
        self._waiting[idx] = np.array([centre, scale, *bounds]).T
        # A scale may be 0 or infinite; what comes of it is not sound, and is withheld.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            reach = np.minimum(np.maximum(bounds * scale, -_MOST_LOG), _MOST_LOG)
            lower, upper = np.exp(centre + reach)
            threshold = self._threshold(table, scale)
            ends = np.log1p(np.array([-threshold, threshold])) - (centre - np.log(last_close))
            below, up_to = _share_below(table, ends / scale)
        # exp(log(x)) may miss x by its last digit.
        lower, upper = np.minimum(lower, predicted), np.maximum(upper, predicted)
        neutral = np.maximum(up_to - below, 0.0)
        told = np.array([lower, upper, threshold, below, neutral, 1.0 - up_to])
        return Outlook(known, learnt, self._rules, *np.where(known, told, np.nan))

    def forget(self, idx: Index) -> None:
        """Learn nothing from the last forecasts of these symbols: they were not published."""
        self._waits[idx] = False

    def _scaled_bounds(self, idx: Index, table: Floats) -> Floats:
        """The quantiles between which a residual lies with probability 1 - alpha, ``(2, k)``.

        The forecast itself is never left outside.
        """
        place = np.interp(0.5 * self._alpha.take(idx), LEVELS, _PLACES)
        bounds = _at(table, np.array([place, _PLACES[-1] - place]))
        np.minimum(bounds[0], 0.0, out=bounds[0])
        np.maximum(bounds[1], 0.0, out=bounds[1])
        return bounds

    def _threshold(self, table: Floats, scale: Floats) -> Floats:
        if self._rules.threshold is not None:
            return np.full(len(scale), self._rules.threshold)
        usual = 0.5 * (table[:, _Q75] - table[:, _Q25])
        return np.minimum(self._rules.multiple * usual * scale, 0.5)

    def _realise(self, idx: Index, close: Floats) -> None:
        """Learn from the closes that waiting forecasts were made of."""
        centre, scale, lower, upper = self._waiting.take(idx, axis=0).T
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            residual = (np.log(close) - centre) / scale
        fine = np.isfinite(residual)
        if not fine.all():
            idx, residual, lower, upper = _those(fine, idx, residual, lower, upper)
        missed = (residual < lower) | (residual > upper)
        n = self._n.take(idx)
        known = n >= self._rules.min_n
        self._adapt(*_those(known, idx, residual, missed))
        if not known.all():
            self._gather(idx[~known], residual[~known])
        self._n[idx] = n + 1

    def _adapt(self, idx: Index, residual: Floats, missed: NDArray[np.bool_]) -> None:
        target = 1.0 - self._rules.level
        alpha = self._alpha.take(idx) + self._rules.gamma * (target - missed)
        alpha = np.minimum(np.maximum(alpha, _LEAST_ALPHA), _MOST_TIMES * target)
        table = self._table.take(idx, axis=0)
        # The residual itself counts, or a market that stood still could never wake up.
        spread = np.maximum(table[:, _Q95] - table[:, _Q05], np.abs(residual))
        # The further the interval had to give way, the more the quantiles are wrong.
        step = _STEP * spread * target / alpha
        table += step[:, None] * (LEVELS - (residual[:, None] < table))
        self._alpha[idx] = alpha
        self._table[idx] = np.maximum.accumulate(table, axis=1)

    def _gather(self, idx: Index, residual: Floats) -> None:
        """Keep the first residuals of symbols that the bundle knows nothing about."""
        self._first[idx, self._n[idx]] = residual
        for slot in idx[self._n[idx] == self._rules.min_n - 1]:
            self._table[slot] = conformal_quantiles(self._first[slot])

    def snapshot(self) -> Snapshot:
        """What has been learnt, copied: it may be encoded in another thread."""
        return Snapshot(
            self._symbols,
            self._n.copy(),
            self._alpha * ((1.0 - _LEVEL) / (1.0 - self._rules.level)),
            self._table.copy(),
            self._first.copy(),
        )

    def adopt(self, other: Calibration) -> None:
        """Go on from where another one of the same bundle is, for the symbols that both have."""
        theirs = {symbol: slot for slot, symbol in enumerate(other._symbols)}
        pairs = [(slot, theirs[s]) for slot, s in enumerate(self._symbols) if s in theirs]
        mine, their = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        for name in ("n", "alpha", "table", "first", "waits", "waiting"):
            getattr(self, f"_{name}")[mine] = getattr(other, f"_{name}")[their]

    def restore(self, states: Mapping[str, bytes]) -> list[str]:
        """Go on from what an earlier process had learnt with the same bundle.

        Returns:
            Symbols whose state was of no use: damaged, or from under other rules.
        """
        refused = []
        for slot, symbol in enumerate(self._symbols):
            if symbol in states and not self._restore_one(slot, states[symbol]):
                refused.append(symbol)
        return refused

    def _restore_one(self, slot: int, state: bytes) -> bool:
        if len(state) % 8 or len(state) < _HEAD:
            return False
        (kind, n, alpha), values = np.split(np.frombuffer(state, "<f8"), [3])
        fits = np.isfinite([kind, n, alpha]).all() and np.isfinite(values).all() and 0 <= n < 2**53
        gathered = kind == _RAW and len(values) == n < self._rules.min_n
        settled = kind == _TABLE and len(values) == len(LEVELS) and n >= self._rules.min_n
        if not fits or not (gathered or (settled and np.all(np.diff(values) >= 0.0))):
            return False
        self._n[slot] = int(n)
        target = 1.0 - self._rules.level
        alpha *= target / (1.0 - _LEVEL)
        self._alpha[slot] = np.clip(alpha, _LEAST_ALPHA, _MOST_TIMES * target)
        if settled:
            self._table[slot] = values
        else:
            self._first[slot, : len(values)] = values
        return True


def _those(chosen: NDArray[np.bool_], *columns: NDArray[Any]) -> Sequence[NDArray[Any]]:
    """The chosen ones of each column; nearly always all of them, which then are not copied."""
    return columns if chosen.all() else [column[chosen] for column in columns]


def _at(table: Floats, place: Floats) -> Floats:
    """The values of ``table [k, columns]`` at fractional columns, row by row: ``[places, k]``."""
    left = np.minimum(place.astype(np.intp), table.shape[1] - 2)
    low, high = _neighbours(table, left)
    part = place - left
    value: Floats = low * (1.0 - part) + high * part
    return value


def _neighbours(table: Floats, left: Index) -> tuple[Floats, Floats]:
    """The values in the columns ``left [places, k]`` of each row, and those to their right."""
    at = left + np.arange(0, table.size, table.shape[1])
    return table.take(at), table.take(at + 1)


def _share_below(table: Floats, value: Floats) -> Floats:
    """Row by row the probability of a residual below ``value [values, k]``, from 0.001 to 0.999."""
    reached = (table <= value[:, :, None]).sum(axis=2)
    left = np.minimum(np.maximum(reached, 1), table.shape[1] - 1) - 1
    low, high = _neighbours(table, left)
    part = np.ones_like(value)
    np.divide(value - low, high - low, out=part, where=high > low)
    np.minimum(np.maximum(part, 0.0), 1.0, out=part)
    begin = LEVELS.take(left)
    share: Floats = begin + part * (LEVELS.take(left + 1) - begin)
    return share
