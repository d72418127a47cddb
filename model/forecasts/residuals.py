"""Measure a model's errors on validation candles and store them as `calibration.json`.

Calibration starts from this file of the bundle. It holds the weights of the volatility scale and,
per symbol, quantiles of the validation residuals divided by that scale (split-conformal prediction:
Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, "Distribution-free predictive inference for
regression", JASA 113, 2018).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from model.files.strict_json import (
    as_integer,
    as_list,
    as_number,
    as_object,
    as_text,
    fail,
    parse_object,
)
from model.forecasts.volatility import (
    N_FEATURES,
    SEASON_MS,
    WARMUP,
    history_features,
    phase,
)
from model.stats.scores import Scored

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_HALF: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1),
    *(0.125, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45),
)
LEVELS: Final[Floats] = np.array([*_HALF, 0.5, *(1.0 - p for p in reversed(_HALF))])
"""Probabilities of the stored quantiles: symmetric, denser at the ends of intervals."""

MIN_RESIDUALS: Final = 200
"""Fewer residuals are not enough for the ends of a 90 % interval."""

DEFAULT_WEIGHTS: Final = (0.0, 0.75, 0.1, 0.4)
"""Weights of the volatility features without a bundle's; measured on minutes of five symbols."""

_MAX_PHASES: Final = 60

_SCHEMA: Final = 1
_FILE: Final = "calibration.json"
_MAX_WEIGHT: Final = 10.0
_MAX_SEASON: Final = 3.0
_PRIOR_ROWS: Final = 100.0
"""Rows that the prior counts for: with few candles the fit stays near the default."""


class SymbolResiduals(NamedTuple):
    """The residuals of one symbol.

    Attributes:
        n: number of residuals.
        quantiles: of ``ln(close / predicted) / scale`` at `LEVELS`, ascending.
    """

    n: int
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Residuals:
    """Start values of the calibration; without symbols it starts from nothing.

    Attributes:
        weights: of the volatility features.
        season: added to the log of the scale, by equal parts of the hour (UTC) in which the
            forecast candle opens.
        by_symbol: those with at least `MIN_RESIDUALS` validation residuals.
    """

    weights: tuple[float, ...] = DEFAULT_WEIGHTS
    season: tuple[float, ...] = (0.0,)
    by_symbol: Mapping[str, SymbolResiduals] = field(default_factory=dict)

    def to_json(self) -> str:
        """The content of ``calibration.json``."""
        document = {
            "schema": _SCHEMA,
            "weights": self.weights,
            "season": self.season,
            "levels": LEVELS.tolist(),
            "symbols": {name: entry._asdict() for name, entry in self.by_symbol.items()},
        }
        return json.dumps(document, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            BundleError: it is anything else.
        """
        keys = ("schema", "weights", "season", "levels", "symbols")
        raw = as_object(parse_object(text, _FILE), _FILE, keys)
        if as_integer(raw["schema"], f"{_FILE}: schema") != _SCHEMA:
            fail(_FILE, f"schema must be {_SCHEMA}, not {raw['schema']}")
        if _numbers(raw["levels"], "levels") != tuple(LEVELS.tolist()):
            fail(_FILE, "levels are not the ones this version works with")
        weights = _numbers(raw["weights"], "weights")
        if len(weights) != N_FEATURES or max(map(abs, weights)) > _MAX_WEIGHT:
            fail(_FILE, f"weights must be {N_FEATURES} numbers of at most {_MAX_WEIGHT:g}")
        season = _numbers(raw["season"], "season")
        if not 1 <= len(season) <= _MAX_PHASES or max(map(abs, season)) > _MAX_SEASON:
            fail(_FILE, f"season must be 1 to {_MAX_PHASES} numbers of at most {_MAX_SEASON:g}")
        symbols = as_object(raw["symbols"], f"{_FILE}: symbols")
        return cls(weights, season, {as_text(s, _FILE): _entry(v, s) for s, v in symbols.items()})


def _numbers(value: object, where: str) -> tuple[float, ...]:
    where = f"{_FILE}: {where}"
    return tuple(as_number(number, where) for number in as_list(value, where))


def _entry(value: object, symbol: str) -> SymbolResiduals:
    where = f"symbols: {ascii(symbol)[:40]}"
    entry = as_object(value, f"{_FILE}: {where}", SymbolResiduals._fields)
    n = as_integer(entry["n"], f"{_FILE}: {where}: n")
    quantiles = _numbers(entry["quantiles"], f"{where}: quantiles")
    if n < 1 or len(quantiles) != len(LEVELS) or np.any(np.diff(quantiles) < 0.0):
        fail(f"{_FILE}: {where}", f"must hold n >= 1 and {len(LEVELS)} ascending quantiles")
    return SymbolResiduals(n, quantiles)


def conformal_quantiles(residuals: Floats) -> Floats:
    """Quantiles at `LEVELS` of n > 0 exchangeable residuals, each rounded outwards.

    The next residual lies at or below the one of rank ``ceil((n + 1) p)`` with probability at least
    p, and likewise from the other end; ranks beyond the ends stop there.
    """
    ordered = np.sort(residuals)
    rank = LEVELS * (len(ordered) + 1)
    # Rounding errors: 0.07 * 200 is 14.000000000000002.
    rank = np.where(LEVELS < 0.5, np.floor(rank + 1e-9), np.ceil(rank - 1e-9)).astype(np.intp)  # noqa: PLR2004 - the middle
    quantiles: Floats = ordered[np.clip(rank - 1, 0, len(ordered) - 1)]
    return quantiles


def fit_residuals(
    candles: Iterable[tuple[str, tuple[Integers, Floats]]],
    symbols: Sequence[str],
    validation: Scored,
) -> Residuals:
    """Fit the scale on the candles before the validation part, then measure the forecasts by it.

    Args:
        candles: of one symbol after the other: opening times (Unix milliseconds) ``[rows]`` and
            ``[rows, 5]``, without gaps. Those of one symbol are in memory at a time.
        symbols: ccxt symbols by the number that ``validation`` uses.
        validation: forecasts that the network was not trained on.
    """
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    before_ms = int(validation.open_ms.min())
    moves, errors = _Moves(), {}
    for symbol, (open_ms, ohlcv) in candles:
        features = history_features(ohlcv)
        moves.add(features, open_ms, ohlcv[:, 3], before_ms)
        if symbol in numbers:
            errors[symbol] = _errors(validation.of(numbers[symbol]), features, open_ms)
    weights = moves.weights()
    season = moves.season(weights)
    by_symbol = {}
    for symbol in symbols:
        error, features, open_ms = errors[symbol]
        scaled = error / np.exp(features @ weights + season[phase(open_ms, len(season))])
        scaled = scaled[np.isfinite(scaled)]
        if len(scaled) >= MIN_RESIDUALS:
            quantiles = conformal_quantiles(scaled).tolist()
            by_symbol[symbol] = SymbolResiduals(len(scaled), tuple(quantiles))
    return Residuals(tuple(weights.tolist()), tuple(season.tolist()), by_symbol)


def _errors(
    forecasts: Scored, features: Floats, open_ms: Integers
) -> tuple[Floats, Floats, Integers]:
    """Log errors of one symbol's forecasts, features before their candles, and their openings."""
    last = np.searchsorted(open_ms, forecasts.open_ms) - 1
    usable = (forecasts.predicted > 0.0) & (last >= WARMUP)
    error = np.log(forecasts.close[usable] / forecasts.predicted[usable])
    return error, features[last[usable]], forecasts.open_ms[usable]


class _Moves:
    """Sums over the moves that the scale is fitted to, each symbol's mean subtracted.

    The candles of a night take a gigabyte; the sums that a regression needs do not grow.
    """

    def __init__(self) -> None:
        self._symbols = 0
        self._gram = np.zeros((N_FEATURES, N_FEATURES))
        # Features times what the prior leaves of the sizes.
        self._rest = np.zeros(N_FEATURES)
        # By part of the hour: number of moves, sums of sizes and of features.
        self._count = np.zeros(1)
        self._size = np.zeros(1)
        self._features = np.zeros((1, N_FEATURES))

    def add(self, features: Floats, open_ms: Integers, close: Floats, before_ms: int) -> None:
        """Add the moves of one symbol's candles that opened before a time.

        Args:
            features: volatility features after each candle, ``[n, N_FEATURES]``.
            open_ms: opening times, ``[n]``.
            close: ``[n]``.
            before_ms: Unix milliseconds.
        """
        if len(self._count) == 1:
            parts = min(max(SEASON_MS // int(open_ms[1] - open_ms[0]), 1), _MAX_PHASES)
            self._count, self._size = np.zeros(parts), np.zeros(parts)
            self._features = np.zeros((parts, N_FEATURES))
        end = int(np.searchsorted(open_ms, before_ms))
        moves = np.abs(np.diff(np.log(close[:end])))[WARMUP:]
        if not moves.any():
            return
        # A move of 0 is one below the tick size; its log must stay finite.
        size = np.log(np.maximum(moves, 0.1 * np.median(moves[moves > 0.0])))
        size -= size.mean()
        x = features[WARMUP : end - 1]
        x = x - x.mean(axis=0)
        at = phase(open_ms[WARMUP + 1 : end], len(self._count))
        self._symbols += 1
        self._gram += x.T @ x
        self._rest += x.T @ (size - x @ np.array(DEFAULT_WEIGHTS))
        self._count += np.bincount(at, minlength=len(self._count))
        self._size += np.bincount(at, size, len(self._count))
        for feature in range(N_FEATURES):
            self._features[:, feature] += np.bincount(at, x[:, feature], len(self._count))

    def weights(self) -> Floats:
        """Regress the size of a move on the features, the same slopes for all symbols."""
        gram = self._gram + _PRIOR_ROWS * np.eye(N_FEATURES)
        weights: Floats = np.array(DEFAULT_WEIGHTS) + np.linalg.solve(gram, self._rest)
        return weights

    def season(self, weights: Floats) -> Floats:
        """Mean excess of moves over the estimate, by part of the hour, shrunk towards 0."""
        # Symbols move together: one candle of all symbols counts as one observation.
        symbols = max(self._symbols, 1)
        excess = (self._size - self._features @ weights) / symbols
        season = excess / (self._count / symbols + _PRIOR_ROWS)
        clipped: Floats = np.clip(season - season.mean(), -_MAX_SEASON, _MAX_SEASON)
        return clipped
