"""Scale features and targets per symbol with min-max ranges that are stored as JSON.

``scaled = (x - feature_min) / (feature_max - feature_min)``, computed as scikit-learn's
`MinMaxScaler` does, so that the bits agree; a feature that never moved has the range 1. The target
is scaled linearly: ``value = raw * target_scale + target_offset``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from model.core.errors import BundleError
from model.files.strict_json import as_list, as_number, as_object, as_text, fail, parse_object

Target = Literal["close", "log_return"]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FILE: Final = "scaler.json"

LEAST_RETURN: Final = 1e-6
"""What 1 of the network is worth at least: a market may have stood still."""


@dataclass(frozen=True, eq=False)
class SymbolScaler:
    """The ranges of one symbol.

    Attributes:
        feature_min: least value of each feature in the rows it was fitted on, ``[F]``.
        feature_max: greatest value of each, ``[F]``.
        target_offset: the target's value where the network says 0.
        target_scale: what 1 of the network's output is worth, above 0.
    """

    feature_min: FloatArray
    feature_max: FloatArray
    target_offset: float
    target_scale: float

    def __post_init__(self) -> None:
        """Refuse ranges that scale to something else than finite numbers.

        Raises:
            BundleError: naming the first fault.
        """
        low, high = self.feature_min, self.feature_max
        if low.ndim != 1 or low.shape != high.shape or not low.size:
            fail(_FILE, "feature_min and feature_max must be of one length, at least 1")
        if not np.isfinite([*low, *high, self.target_offset, self.target_scale]).all():
            fail(_FILE, "ranges and the target's scaling must be finite")
        with np.errstate(over="ignore"):
            width = high - low
        if not np.isfinite(width).all():
            fail(_FILE, "a feature's range must not be wider than a number can be")
        if (low > high).any() or self.target_scale <= 0.0:
            fail(_FILE, "feature_min must not exceed feature_max, target_scale must be above 0")

    def encode(self) -> bytes:
        """For `decode`, bit by bit: target's offset and scale, least and greatest values."""
        target = self.target_offset, self.target_scale
        return np.array([*target, *self.feature_min, *self.feature_max], dtype="<f8").tobytes()

    @classmethod
    def decode(cls, state: bytes, n_features: int) -> Self:
        """Read what `encode` wrote.

        Raises:
            BundleError: it is anything else, or of another number of features.
        """
        if len(state) != 8 * (2 + 2 * n_features):
            fail(_FILE, f"a saved scaler must hold {n_features} features")
        numbers = np.frombuffer(state, "<f8")
        low, high = numbers[2:].reshape(2, n_features)
        return cls(low, high, float(numbers[0]), float(numbers[1]))


class ScalerSet:
    """The scalers of all symbols a model was trained for.

    Args:
        features: feature names in the order of the ranges.
        target: what the network forecasts.
        by_symbol: one scaler per ccxt symbol.

    Raises:
        BundleError: no symbol, no such target, or ranges of another length than ``features``.
    """

    def __init__(
        self, features: Sequence[str], target: Target, by_symbol: Mapping[str, SymbolScaler]
    ) -> None:
        self.features: Final = tuple(features)
        self.target: Final = target
        self.by_symbol: Final = dict(by_symbol)
        if target not in get_args(Target):
            fail(_FILE, f"target must be one of {get_args(Target)}, not {target!r}")
        if not self.by_symbol:
            fail(_FILE, "holds no symbol")
        for symbol, scaler in self.by_symbol.items():
            if scaler.feature_min.size != len(self.features):
                fail(_FILE, f"{symbol} has not one range for each of {list(self.features)}")

    def to_json(self) -> str:
        """The text of ``scaler.json``; numbers come back bit by bit."""
        symbols = {
            symbol: {
                "feature_min": scaler.feature_min.tolist(),
                "feature_max": scaler.feature_max.tolist(),
                "target_offset": scaler.target_offset,
                "target_scale": scaler.target_scale,
            }
            for symbol, scaler in self.by_symbol.items()
        }
        document = {"features": self.features, "target": self.target, "symbols": symbols}
        return json.dumps(document, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            BundleError: anything else, however slightly.
        """
        document = as_object(parse_object(text, _FILE), _FILE, ("features", "target", "symbols"))
        features = [
            as_text(name, f"{_FILE} features") for name in as_list(document["features"], _FILE)
        ]
        target = as_text(document["target"], f"{_FILE} target")
        symbols = as_object(document["symbols"], f"{_FILE} symbols")
        return cls(
            features,
            cast("Target", target),
            {symbol: _symbol_scaler(value, symbol) for symbol, value in symbols.items()},
        )

    def bind(self, symbols: Sequence[str], *, fit_unknown: bool = False) -> BoundScaler:
        """Number the symbols by their place in ``symbols`` and scale them by number.

        Args:
            symbols: ccxt symbols.
            fit_unknown: accept symbols the model was not trained for; `BoundScaler.fit` them.

        Raises:
            BundleError: a symbol the model was not trained for.
        """
        unknown = [symbol for symbol in symbols if symbol not in self.by_symbol]
        if unknown and not fit_unknown:
            msg = (
                f"the model was not trained for {', '.join(unknown)}, only for "
                f"{', '.join(self.by_symbol)}: change trading.symbols or train again"
            )
            raise BundleError(msg)
        blank = SymbolScaler(np.zeros(len(self.features)), np.ones(len(self.features)), 0.0, 1.0)
        bound = BoundScaler([self.by_symbol.get(symbol, blank) for symbol in symbols])
        bound.fitted[:] = [symbol in self.by_symbol for symbol in symbols]
        return bound


class BoundScaler:
    """Scalers of numbered symbols in contiguous arrays.

    Attributes:
        fitted: which of them may be used, ``[n]``.
    """

    def __init__(self, scalers: Sequence[SymbolScaler]) -> None:
        self.fitted: Final = np.ones(len(scalers), dtype=np.bool_)
        self._low = np.stack([scaler.feature_min for scaler in scalers])
        self._high = np.stack([scaler.feature_max for scaler in scalers])
        self._factor, self._summand = _line(self._low, self._high)
        self._offset = np.array([scaler.target_offset for scaler in scalers], dtype=np.float64)
        self._scale = np.array([scaler.target_scale for scaler in scalers], dtype=np.float64)

    def fit(self, idx: IntArray, rows: FloatArray, close: FloatArray, target: Target) -> None:
        """Fit symbols to what has been seen of them, as training does it.

        Args:
            idx: ``[k]`` their numbers.
            rows: ``[k, rows, F]`` features; NaN where there is none yet.
            close: ``[k, rows]`` closes.
            target: what the network forecasts.
        """
        self._low[idx], self._high[idx] = np.nanmin(rows, axis=1), np.nanmax(rows, axis=1)
        self._factor[idx], self._summand[idx] = _line(self._low[idx], self._high[idx])
        if target == "close":
            self._offset[idx] = close.min(axis=1)
            self._scale[idx] = np.maximum(np.ptp(close, axis=1), LEAST_RETURN * close[:, -1])
        else:
            self._offset[idx] = 0.0
            returns = np.diff(np.log(close), axis=1)
            self._scale[idx] = np.maximum(returns.std(axis=1), LEAST_RETURN)
        self.fitted[idx] = True

    def adopt(self, idx: IntArray, other: BoundScaler, theirs: IntArray) -> None:
        """Scale the symbols ``idx [k]`` as another one scales those that it calls ``theirs``."""
        for name in ("fitted", "_low", "_high", "_factor", "_summand", "_offset", "_scale"):
            getattr(self, name)[idx] = getattr(other, name)[theirs]

    def take(self, slot: int) -> SymbolScaler:
        """The scaler of one symbol."""
        target = float(self._offset[slot]), float(self._scale[slot])
        return SymbolScaler(self._low[slot].copy(), self._high[slot].copy(), *target)

    def scale(self, idx: IntArray, rows: FloatArray) -> NDArray[np.float32]:
        """Scale the rows ``[k, F]`` of the symbols ``idx [k]``; 0 … 1 inside the fitted range."""
        # Beyond the range of float32 a value is infinite, and what is forecast from it no price.
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = rows * self._factor.take(idx, axis=0)
            scaled += self._summand.take(idx, axis=0)
            return scaled.astype(np.float32)

    def unscale_target(self, idx: IntArray, raw: NDArray[np.float32]) -> FloatArray:
        """Turn the network's outputs ``[k]`` into target values ``[k]``."""
        with np.errstate(over="ignore", invalid="ignore"):
            return raw * self._scale.take(idx) + self._offset.take(idx)

    def fitted_range(self, idx: IntArray, feature: int) -> tuple[FloatArray, FloatArray]:
        """Least and greatest value of a feature in the rows that it was fitted on, ``[k]`` each."""
        return self._low[idx, feature], self._high[idx, feature]

    def out_of_range(self, idx: IntArray, rows: FloatArray) -> NDArray[np.bool_]:
        """Which of the values ``[k, F]`` lie outside the fitted range."""
        return (rows < self._low.take(idx, axis=0)) | (rows > self._high.take(idx, axis=0))


def _line(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Factor and summand that take ``low … high`` to 0 … 1."""
    width = high - low
    factor = 1.0 / np.where(width < 10 * np.finfo(np.float64).eps, 1.0, width)
    return factor, -low * factor


def _symbol_scaler(value: object, symbol: str) -> SymbolScaler:
    where = f"{_FILE} {symbol[:40]!r}"
    keys = ("feature_min", "feature_max", "target_offset", "target_scale")
    fields: dict[str, Any] = as_object(value, where, keys)
    low, high = (
        np.array([as_number(x, f"{where} {key}") for x in as_list(fields[key], where)])
        for key in keys[:2]
    )
    offset, scale = (as_number(fields[key], f"{where} {key}") for key in keys[2:])
    return SymbolScaler(low, high, offset, scale)
