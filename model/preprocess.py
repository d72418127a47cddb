"""Compute indicators, scale them and cut training sequences from a frame of candles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.core.errors import ConfigError
from model.features import sklearn_scaler
from model.features.batch import level_free_columns, reference_columns
from model.features.candle_frames import check_frame, column
from model.features.definitions import CLOSE_FEATURES, FEATURES, LOG_RETURN_FEATURES, Indicators
from model.features.scaler import MIN_TARGET_SCALE
from model.features.sliding_windows import Windows
from model.reference_config import load_config

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from sklearn.preprocessing import MinMaxScaler

    from model.features.scaler import SymbolScaler

_DEFAULT_FEATURES = {"close": CLOSE_FEATURES, "log_return": LOG_RETURN_FEATURES}


def target_of(config: dict[str, Any]) -> str:
    """Return `model.target` of a configuration.

    Raises:
        ConfigError: it is neither "close" nor "log_return".
    """
    target = config["model"]["target"]
    if target not in _DEFAULT_FEATURES:
        msg = f"model.target is {target!r}; it must be one of {', '.join(_DEFAULT_FEATURES)}"
        raise ConfigError(msg)
    return str(target)


def features_of(config: dict[str, Any]) -> tuple[str, ...]:
    """Return `model.features` of a configuration; the target's default if it is null.

    Raises:
        ConfigError: an unknown or repeated feature.
    """
    names = tuple(config["model"]["features"] or _DEFAULT_FEATURES[target_of(config)])
    unknown = [name for name in names if name not in FEATURES]
    if unknown or len(set(names)) != len(names):
        msg = (
            f"model.features is {list(names)}; it must list different names out of "
            f"{', '.join(FEATURES)}"
        )
        raise ConfigError(msg)
    return names


def indicators_of(config: dict[str, Any]) -> Indicators:
    """Return the periods of the `indicators` section.

    Raises:
        ConfigError: an unknown key or an impossible period.
    """
    try:
        return Indicators(**config["indicators"])
    except (TypeError, ValueError) as error:
        msg = f"indicators: {error}"
        raise ConfigError(msg) from None


def _require_lookback(value: object) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        msg = f"lookback must be a whole number above 0, not {value!r}"
        raise ValueError(msg)


class DataPreprocessor:
    """Indicators, scaling and sequences of one symbol.

    Attributes:
        config: the configuration; `model` and `indicators` have every key.
        scaler: the feature scaler, None until fitted by `create_sequences` or loaded. It carries
            the target's scaling as `target_name_`, `target_offset_` and `target_scale_`.

    Args:
        config_path: YAML configuration file.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is not a configuration.
    """

    def __init__(self, config_path: str | Path = "config/config.yaml") -> None:
        self.config = load_config(config_path)
        self.scaler: MinMaxScaler | None = None
        self._fitted_here: MinMaxScaler | None = None

    def add_technical_indicators(self, df: pd.DataFrame) -> pd.DataFrame:
        """Add the sixteen indicator columns of the reference.

        Args:
            df: candles with `datetime, open, high, low, close, volume`, oldest first.

        Returns:
            A copy with the same rows and the added columns. Row *t* depends on rows up to *t*
            alone; warm-up rows are NaN.

        Raises:
            ValueError: a column is missing or holds a value that is not a finite number, or the
                rows are not in the order of their time.
        """
        check_frame(df)
        return df.assign(**reference_columns(df, indicators_of(self.config)))

    def create_sequences(
        self, df: pd.DataFrame, lookback: int = 60
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Cut candles into scaled windows and the value that follows each.

        Without a loaded scaler, one is fitted on the first `model.train_split` of the rows. Feature
        columns that ``df`` lacks are computed. Windows that touch a warm-up row are left out.

        Args:
            df: candles, with or without indicators, oldest first.
            lookback: rows per window.

        Returns:
            ``X (n_samples, lookback, n_features)``; ``y (n_samples,)``, the scaled target: the next
            close, or ln(next close / last close); ``indices (n_samples,)``, positions in ``df`` of
            the rows that ``y`` belongs to.

        Raises:
            ValueError: too few rows for one window, rows that are not in the order of time, a
                candle with values that are not finite, or a scaler of other features. The scaler
                is then unchanged.
        """
        rows, y, indices = self.scaled_rows(df, lookback)
        return Windows(rows, indices - lookback, lookback)[:], y, indices

    def scaled_rows(
        self, df: pd.DataFrame, lookback: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Compute the scaled rows that `create_sequences` cuts its windows from.

        Args:
            df: as in `create_sequences`.
            lookback: rows per window.

        Returns:
            ``(len(df), n_features)``, warm-up rows included; ``y`` and ``indices``
            as in `create_sequences`: the window before ``indices[i]`` belongs to ``y[i]``.

        Raises:
            ValueError: as in `create_sequences`.
        """
        check_frame(df)
        _require_lookback(lookback)
        names = features_of(self.config)
        target = self._target(df)
        rows = self._feature_rows(df, names)
        fits = self.scaler is None or self.scaler is self._fitted_here
        scaler = self._fitted(rows, target) if fits else self._loaded()
        scaled = (rows * scaler.scale_ + scaler.min_).astype(np.float32)
        y = ((target - scaler.target_offset_) / scaler.target_scale_).astype(np.float32)
        ends = np.arange(lookback, len(df))
        bad_rows_before = np.concatenate([[0], np.cumsum(~np.isfinite(scaled).all(axis=1))])
        clean = bad_rows_before[ends] == bad_rows_before[ends - lookback]
        indices = ends[clean & np.isfinite(y[lookback:])]
        if indices.size == 0:
            msg = f"{len(df)} rows are too few for one window of {lookback} after the warm-up"
            raise ValueError(msg)
        if fits:
            self.scaler = self._fitted_here = scaler
        return scaled, y[indices], indices.astype(np.int64)

    def _feature_rows(self, df: pd.DataFrame, names: tuple[str, ...]) -> NDArray[np.float64]:
        if any(name not in df.columns for name in names):
            computed = self.add_technical_indicators(df)
            computed = computed.assign(**level_free_columns(computed))
            df = df.assign(**{n: computed[n] for n in names if n not in df.columns})
        return np.stack([column(df, name) for name in names], axis=1)

    def _target(self, df: pd.DataFrame) -> NDArray[np.float64]:
        close = column(df, "close")
        if target_of(self.config) == "close":
            return close
        if (close <= 0.0).any():
            row = int(np.argmax(close <= 0.0))
            msg = f"close of row {row} is {close[row]}: log_return needs prices above 0"
            raise ValueError(msg)
        returns: NDArray[np.float64] = np.log(close / np.concatenate([[np.nan], close[:-1]]))
        return returns

    def _fitted(self, rows: NDArray[np.float64], target: NDArray[np.float64]) -> MinMaxScaler:
        """Fit a scaler to the training rows."""
        train = slice(int(len(rows) * float(self.config["model"]["train_split"])))
        return self._fit(rows[train], target[train])

    def _loaded(self) -> MinMaxScaler:
        """Return the loaded scaler after checking its features and target."""
        assert self.scaler is not None  # noqa: S101 - the caller checked
        found, wanted = self.scaler.n_features_in_, features_of(self.config)
        if found != len(wanted):
            msg = f"the scaler is for {found} features, the configuration has {len(wanted)}"
            raise ValueError(msg)
        names = sklearn_scaler.features_in(self.scaler) or wanted
        if names != wanted:
            msg = f"the scaler is for the features {names}, the configuration has {wanted}"
            raise ValueError(msg)
        return self._complete_scaler()

    def _fit(self, rows: NDArray[np.float64], target: NDArray[np.float64]) -> MinMaxScaler:
        rows = rows[np.isfinite(rows).all(axis=1)]
        target = target[np.isfinite(target)]
        if len(rows) == 0 or len(target) == 0:
            msg = "no training row is left after the warm-up: more candles are needed"
            raise ValueError(msg)
        scaler = sklearn_scaler.new_scaler(rows.min(axis=0), rows.max(axis=0))
        name = target_of(self.config)
        scaling: tuple[float, float]
        if name == "close":
            scaling = target.min(), max(np.ptp(target), MIN_TARGET_SCALE * target[-1])
        else:
            # No offset: output 0 then means an unchanged price.
            scaling = 0.0, max(target.std(), MIN_TARGET_SCALE)
        sklearn_scaler.describe(scaler, features_of(self.config), name, scaling)
        return scaler

    def _complete_scaler(self) -> MinMaxScaler:
        """Return the scaler with names and target; the reference's has the target in its close."""
        if self.scaler is None:
            msg = "no scaler is fitted: call create_sequences() or load_scaler() first"
            raise ValueError(msg)
        scaler, names, target = self.scaler, features_of(self.config), target_of(self.config)
        if not sklearn_scaler.has_target(scaler):
            if target != "close" or "close" not in names:
                msg = f"the scaler does not know the target {target!r}: fit and save it anew"
                raise ValueError(msg)
            close = names.index("close")
            scaling = scaler.data_min_[close], 1.0 / scaler.scale_[close]
            sklearn_scaler.describe(scaler, names, target, scaling)
        if scaler.target_name_ != target:
            msg = f"the scaler is for {scaler.target_name_!r}, but model.target is {target!r}"
            raise ValueError(msg)
        return scaler

    def symbol_scaler(self) -> SymbolScaler:
        """Return the scaler in the form of bundles.

        Raises:
            ValueError: nothing is fitted.
        """
        return sklearn_scaler.symbol_scaler(self._complete_scaler())

    def save_scaler(self, filepath: str | Path = "models/scaler.pkl") -> None:
        """Save the scaler and create its folder; `.json` is written as JSON, other names as pickle.

        Raises:
            ValueError: nothing is fitted.
        """
        path, scaler = Path(filepath), self._complete_scaler()
        path.parent.mkdir(parents=True, exist_ok=True)
        save = sklearn_scaler.save_json if path.suffix == ".json" else sklearn_scaler.save_pickle
        save(scaler, path)

    def load_scaler(self, filepath: str | Path = "models/scaler.pkl") -> None:
        """Load a scaler; `create_sequences` uses it without fitting.

        Raises:
            FileNotFoundError: there is no such file.
            BundleError: it is not a fitted `MinMaxScaler`.
        """
        path = Path(filepath)
        load = sklearn_scaler.load_json if path.suffix == ".json" else sklearn_scaler.load_pickle
        self.scaler = load(path)
        self._fitted_here = None
