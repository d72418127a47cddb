from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.core.errors import ConfigError
from model.features.batch import level_free_columns
from model.features.definitions import CLOSE_FEATURES, FEATURES, LOG_RETURN_FEATURES, Indicators
from model.features.streaming import FeatureBank
from model.preprocess import DataPreprocessor

Configure = Callable[..., Path]
DEFAULTS = Path(__file__).resolve().parents[2] / "config" / "config.yaml"

REFERENCE_COLUMNS = [
    "rsi_14",
    "macd",
    "macd_signal",
    "macd_diff",
    "bb_upper",
    "bb_middle",
    "bb_lower",
    "bb_width",
    "price_change",
    "volume_change",
    "hl_range",
    "sma_10",
    "sma_30",
    "ema_10",
    "volume_sma_20",
    "volume_ratio",
]


def test_configuration_is_completed_with_the_reference_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {epochs: 3}\nexchange: {name: okx}\n", encoding="utf-8")
    config = DataPreprocessor(str(path)).config
    assert config["model"]["epochs"] == 3
    assert config["model"]["lstm_units"] == [64, 32]
    assert config["model"]["lookback_periods"] == 60
    assert config["indicators"]["rsi_period"] == 14
    assert config["exchange"] == {"name": "okx"}


def test_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        DataPreprocessor(tmp_path / "nowhere.yaml")


def test_configuration_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="model must be a section"):
        DataPreprocessor(path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"target": "mood"}, "model.target is 'mood'"),
        ({"features": ["close", "moon"]}, "model.features"),
        ({"features": ["close", "close"]}, "model.features"),
    ],
)
def test_impossible_settings_are_named(
    configure: Configure, candles: pd.DataFrame, model: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        DataPreprocessor(configure(**model)).create_sequences(candles)


def test_indicators_are_added_to_the_same_rows(configure: Configure, candles: pd.DataFrame) -> None:
    before = candles.copy()
    frame = DataPreprocessor(configure()).add_technical_indicators(candles)
    pd.testing.assert_frame_equal(candles, before)
    pd.testing.assert_frame_equal(frame[candles.columns], candles)
    assert list(frame.columns) == [*candles.columns, *REFERENCE_COLUMNS]
    first = {name: int(np.argmax(frame[name].notna())) for name in REFERENCE_COLUMNS}
    assert first == {name: Indicators().first_rows()[name] for name in REFERENCE_COLUMNS}
    assert frame.iloc[33:][REFERENCE_COLUMNS].notna().all(axis=None)


def test_indicator_formulas(configure: Configure, candles: pd.DataFrame) -> None:
    frame = DataPreprocessor(configure()).add_technical_indicators(candles)
    close, volume = candles["close"], candles["volume"]
    band = close.rolling(20)
    expected = {
        "bb_upper": band.mean() + 2 * band.std(ddof=0),
        "bb_width": 4 * band.std(ddof=0) / band.mean(),
        "price_change": close.pct_change(),
        "volume_change": volume.pct_change(),
        "hl_range": (candles["high"] - candles["low"]) / close,
        "sma_30": close.rolling(30).mean(),
        "volume_ratio": volume / volume.rolling(20).mean(),
    }
    for name, series in expected.items():
        np.testing.assert_allclose(frame[name], series, rtol=1e-7, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(frame["macd_diff"], frame["macd"] - frame["macd_signal"])


def test_streaming_features_are_the_batch_features(
    configure: Configure, candles: pd.DataFrame
) -> None:
    frame = DataPreprocessor(configure()).add_technical_indicators(candles)
    frame = frame.assign(**level_free_columns(frame))
    rows = candles[["open", "high", "low", "close", "volume"]].to_numpy()
    streamed = FeatureBank(FEATURES, Indicators(), 1).prime(np.array([0]), rows[None])[0]
    np.testing.assert_allclose(frame[list(FEATURES)], streamed, rtol=1e-6, atol=1e-9)


def test_quiet_market_gives_finite_features(configure: Configure, candles: pd.DataFrame) -> None:
    candles.loc[200:260, ["open", "high", "low", "close"]] = 94_000.0
    candles.loc[200:260, "volume"] = 0.0
    frame = DataPreprocessor(configure()).add_technical_indicators(candles)
    frame = frame.assign(**level_free_columns(frame))
    assert np.isfinite(frame.iloc[40:][list(FEATURES)].to_numpy()).all()
    assert frame["volume_change"].iloc[210] == 0.0
    assert frame["volume_ratio"].iloc[255] == 0.0


@settings(max_examples=25, deadline=None)
@given(row=st.integers(100, 399), factor=st.floats(0.2, 5.0), volume=st.floats(0.0, 1e6))
def test_no_feature_looks_ahead(
    all_candles: pd.DataFrame, row: int, factor: float, volume: float
) -> None:
    candles = all_candles.iloc[:400].reset_index(drop=True)
    changed = candles.copy()
    prices = ["open", "high", "low", "close"]
    changed.loc[row:, prices] *= factor
    changed.loc[row:, "volume"] = volume
    preprocessor = DataPreprocessor(DEFAULTS)
    frames = [preprocessor.add_technical_indicators(x) for x in (candles, changed)]
    before, after = (x.assign(**level_free_columns(x))[list(FEATURES)] for x in frames)
    pd.testing.assert_frame_equal(before.iloc[:row], after.iloc[:row], check_exact=True)


@settings(max_examples=10, deadline=None)
@given(row=st.integers(281, 399), factor=st.floats(0.5, 2.0))
def test_no_window_looks_ahead(all_candles: pd.DataFrame, row: int, factor: float) -> None:
    candles = all_candles.iloc[:400].reset_index(drop=True)
    changed = candles.copy()
    changed.loc[row:, ["open", "high", "low", "close"]] *= factor
    windows = [DataPreprocessor(DEFAULTS).create_sequences(x) for x in (candles, changed)]
    (X, y, indices), (other_X, other_y, _) = windows
    # The scaler is fitted on rows 0 … 279, so what comes after cannot move it either.
    known = indices <= row
    np.testing.assert_array_equal(X[known], other_X[known])
    np.testing.assert_array_equal(y[indices < row], other_y[indices < row])


def test_sequences_of_the_reference_target(configure: Configure, candles: pd.DataFrame) -> None:
    preprocessor = DataPreprocessor(configure())
    frame = preprocessor.add_technical_indicators(candles)
    X, y, indices = preprocessor.create_sequences(frame, lookback=60)
    assert X.shape == (len(frame) - 33 - 60, 60, 6)
    assert [a.dtype.name for a in (X, y, indices)] == ["float32", "float32", "int64"]
    assert y.shape == indices.shape == (len(X),)
    np.testing.assert_array_equal(indices, np.arange(93, len(frame)))
    train = frame.iloc[33 : int(len(frame) * 0.7)]
    low, high = train["close"].min(), train["close"].max()
    np.testing.assert_allclose(y, (frame["close"][indices] - low) / (high - low), rtol=1e-5)
    for column, name in enumerate(CLOSE_FEATURES):
        low, high = train[name].min(), train[name].max()
        np.testing.assert_allclose(
            X[7, :, column], (frame[name].iloc[40:100] - low) / (high - low), rtol=2e-4, atol=1e-5
        )


def test_sequences_of_log_returns(configure: Configure, candles: pd.DataFrame) -> None:
    preprocessor = DataPreprocessor(configure(target="log_return"))
    X, y, indices = preprocessor.create_sequences(candles, lookback=60)
    assert X.shape[2] == len(LOG_RETURN_FEATURES)
    close = candles["close"].to_numpy()
    returns = np.log(close[indices] / close[indices - 1])
    scaler = preprocessor.symbol_scaler()
    assert scaler.target_offset == 0.0
    np.testing.assert_allclose(y * scaler.target_scale, returns, rtol=1e-5, atol=1e-9)
    doubled = candles.assign(**{c: candles[c] * 2 for c in ("open", "high", "low", "close")})
    X_doubled, y_doubled, _ = DataPreprocessor(configure(target="log_return")).create_sequences(
        doubled, lookback=60
    )
    np.testing.assert_allclose(X, X_doubled, atol=1e-5)
    np.testing.assert_allclose(y, y_doubled, atol=1e-5)


def test_the_scaler_sees_training_rows_only(configure: Configure, candles: pd.DataFrame) -> None:
    first = DataPreprocessor(configure())
    first.create_sequences(candles)
    candles.loc[int(len(candles) * 0.7) :, ["open", "high", "low", "close"]] *= 3.0
    second = DataPreprocessor(configure())
    second.create_sequences(candles)
    assert first.scaler is not None
    assert second.scaler is not None
    np.testing.assert_array_equal(first.scaler.data_max_, second.scaler.data_max_)


def test_windows_that_touch_a_missing_value_are_left_out(
    configure: Configure, candles: pd.DataFrame
) -> None:
    preprocessor = DataPreprocessor(configure())
    frame = preprocessor.add_technical_indicators(candles)
    frame.loc[300, "rsi_14"] = np.nan
    X, _, indices = preprocessor.create_sequences(frame, lookback=60)
    assert np.isfinite(X).all()
    assert 300 in indices
    assert not set(range(301, 361)) & set(indices.tolist())


@pytest.mark.parametrize("rows", [1, 30, 93])
def test_too_few_candles(configure: Configure, candles: pd.DataFrame, rows: int) -> None:
    with pytest.raises(ValueError, match=r"few|more candles"):
        DataPreprocessor(configure()).create_sequences(candles.iloc[:rows], lookback=60)


def test_broken_candles_are_refused(configure: Configure, candles: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="lack the columns volume"):
        DataPreprocessor(configure()).add_technical_indicators(candles.drop(columns="volume"))
    candles.loc[5, "close"] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        DataPreprocessor(configure()).add_technical_indicators(candles)


@pytest.mark.parametrize("target", ["close", "log_return"])
@pytest.mark.parametrize("ticks", [0, 1])
def test_a_constant_feature_has_a_range_of_a_millionth(
    configure: Configure, target: str, ticks: int
) -> None:
    """Else the network's 0.1 would forecast a move of 10 %, or one tick be worth a hundred."""
    close = np.full(700, 5e-5)
    close[300:] += ticks * 1e-12
    candles = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close))
    candles["volume"] = 1.0
    preprocessor = DataPreprocessor(configure(target=target, lookback_periods=8))
    _, y, _ = preprocessor.create_sequences(candles, 8)
    scaler = preprocessor.symbol_scaler()
    worth = scaler.target_scale / (5e-5 if target == "close" else 1.0)
    assert worth == pytest.approx(1e-6)
    assert np.abs(y).max() < 0.1
