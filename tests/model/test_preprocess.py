from __future__ import annotations

import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from model.errors import BundleError, ConfigError
from model.features import CLOSE_FEATURES, FEATURES, LOG_RETURN_FEATURES, FeatureBank, Indicators
from model.indicators import level_free_columns
from model.preprocess import DataPreprocessor
from model.scaler import ScalerSet

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


@pytest.mark.parametrize("name", ["scaler.pkl", "scaler.json"])
@pytest.mark.parametrize("target", ["close", "log_return"])
def test_saved_scaler_is_used_as_it_is(
    configure: Configure, all_candles: pd.DataFrame, tmp_path: Path, name: str, target: str
) -> None:
    config = configure(target=target)
    fitted = DataPreprocessor(config)
    fitted.create_sequences(all_candles.iloc[:500])
    fitted.save_scaler(tmp_path / "new" / name)
    loaded = DataPreprocessor(config)
    loaded.load_scaler(str(tmp_path / "new" / name))
    assert isinstance(loaded.scaler, MinMaxScaler)
    later = all_candles.iloc[500:900]
    X, y, _ = loaded.create_sequences(later)
    X_again, y_again, _ = loaded.create_sequences(later)
    np.testing.assert_array_equal(X, X_again)
    np.testing.assert_array_equal(y, y_again)
    assert fitted.scaler is not None
    frame = fitted.add_technical_indicators(later)
    frame = frame.assign(**level_free_columns(frame))
    names = list(fitted.scaler.feature_names_in_)
    expected = fitted.scaler.transform(frame[names])
    np.testing.assert_allclose(X[0], expected[33:93], rtol=1e-6, atol=1e-6)
    saved, again = fitted.symbol_scaler(), loaded.symbol_scaler()
    np.testing.assert_array_equal(saved.feature_min, again.feature_min)
    np.testing.assert_array_equal(saved.feature_max, again.feature_max)
    assert (saved.target_offset, saved.target_scale) == (again.target_offset, again.target_scale)


def test_batch_and_serving_scale_to_the_same_bits(
    configure: Configure, candles: pd.DataFrame
) -> None:
    preprocessor = DataPreprocessor(configure())
    frame = preprocessor.add_technical_indicators(candles)
    X, _, _ = preprocessor.create_sequences(frame)
    scalers = ScalerSet(CLOSE_FEATURES, "close", {"BTC/USDT": preprocessor.symbol_scaler()})
    rows = frame[list(CLOSE_FEATURES)].to_numpy()[33:93]
    served = scalers.bind(["BTC/USDT"]).scale(np.zeros(60, dtype=np.int64), rows)
    np.testing.assert_array_equal(X[0], served)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("named", [True, False])
def test_a_scaler_of_the_reference_is_read(
    configure: Configure, candles: pd.DataFrame, tmp_path: Path, protocol: int, *, named: bool
) -> None:
    preprocessor = DataPreprocessor(configure())
    rows = preprocessor.add_technical_indicators(candles)[list(CLOSE_FEATURES)].dropna()
    reference = MinMaxScaler().fit(rows if named else rows.to_numpy())
    path = tmp_path / "scaler.pkl"
    path.write_bytes(pickle.dumps(reference, protocol=protocol))
    preprocessor.load_scaler(path)
    X, y, indices = preprocessor.create_sequences(candles)
    assert X.min() == 0.0
    assert X.max() == 1.0
    low, high = rows["close"].min(), rows["close"].max()
    np.testing.assert_allclose(y, (candles["close"][indices] - low) / (high - low), atol=1e-6)


def test_a_scaler_of_something_else_is_refused(
    configure: Configure, candles: pd.DataFrame, tmp_path: Path
) -> None:
    returns = DataPreprocessor(configure(target="log_return"))
    with pytest.raises(ValueError, match="no scaler is fitted"):
        returns.save_scaler(tmp_path / "scaler.pkl")
    returns.create_sequences(candles)
    returns.save_scaler(tmp_path / "returns.pkl")
    closes = DataPreprocessor(configure())
    closes.load_scaler(tmp_path / "returns.pkl")
    with pytest.raises(ValueError, match="for the features"):
        closes.create_sequences(candles)
    same_features = DataPreprocessor(configure(features=list(LOG_RETURN_FEATURES)))
    same_features.load_scaler(tmp_path / "returns.pkl")
    with pytest.raises(ValueError, match="for 'log_return', but"):
        same_features.create_sequences(candles)
    (tmp_path / "two.pkl").write_bytes(pickle.dumps(MinMaxScaler().fit(np.eye(2))))
    closes.load_scaler(tmp_path / "two.pkl")
    with pytest.raises(ValueError, match="for 2 features"):
        closes.create_sequences(candles)
    (tmp_path / "six.pkl").write_bytes(pickle.dumps(MinMaxScaler().fit(np.eye(6))))
    returns.load_scaler(tmp_path / "six.pkl")
    with pytest.raises(ValueError, match="does not know the target"):
        returns.create_sequences(candles)


@pytest.mark.parametrize("name", ["scaler.pkl", "scaler.json"])
def test_missing_scaler_file(configure: Configure, tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        DataPreprocessor(configure()).load_scaler(tmp_path / name)


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


def _scaler_with(**state: object) -> MinMaxScaler:
    scaler = MinMaxScaler().fit(np.eye(6))
    vars(scaler).update(state)
    return scaler


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(_Runs()),
        pickle.dumps(_scaler_with(extra=_Runs())),
        pickle.dumps(_scaler_with(data_min_=np.full(6, np.nan))),
        pickle.dumps(_scaler_with(data_min_=np.full(6, 2.0))),
        pickle.dumps(_scaler_with(data_min_=np.zeros(5))),
        pickle.dumps(_scaler_with(feature_names_in_=np.array(["close"], dtype=object))),
        pickle.dumps(_scaler_with(feature_range=(-1, 1))),
        pickle.dumps(_scaler_with(clip=True)),
        pickle.dumps(_scaler_with(target_name_="close", target_offset_=0.0, target_scale_=0.0)),
        pickle.dumps(MinMaxScaler()),
        pickle.dumps(StandardScaler().fit(np.eye(6))),
        pickle.dumps({"scale_": [1.0]}),
        pickle.dumps(MinMaxScaler().fit(np.eye(6)))[:-40],
        # numpy.ndarray((2**40,)): allocates a terabyte if it is really called.
        b"cnumpy\nndarray\n(I1099511627776\ntR.",
        b"\x80\x04P1\n.",
        b"not a pickle",
        b"",
        b"\x00" * ((1 << 20) + 1),
    ],
    ids=range(18),
)
def test_hostile_pickles_are_refused(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scaler.pkl").write_bytes(content)
    preprocessor = DataPreprocessor(configure())
    with pytest.raises(BundleError, match=r"scaler\.pkl is not a pickled, fitted MinMaxScaler"):
        preprocessor.load_scaler("scaler.pkl")
    assert preprocessor.scaler is None
    assert not (tmp_path / "pwned").exists()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_pickles_raise_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(pickle.dumps(MinMaxScaler().fit(np.eye(3))))
    ends = [position for _, _, position in pickletools.genops(bytes(content)) if position]
    for position in data.draw(st.lists(st.sampled_from(ends), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(content)
    preprocessor = DataPreprocessor(DEFAULTS)
    try:
        preprocessor.load_scaler(path)
    except BundleError:
        assert preprocessor.scaler is None
    else:
        assert isinstance(preprocessor.scaler, MinMaxScaler)


@pytest.mark.parametrize("content", ["{", '{"features": []}', "NaN"])
def test_broken_json_scalers_are_refused(
    configure: Configure, tmp_path: Path, content: str
) -> None:
    (tmp_path / "scaler.json").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError):
        DataPreprocessor(configure()).load_scaler(tmp_path / "scaler.json")


def test_a_json_scaler_of_two_symbols_is_refused(
    configure: Configure, candles: pd.DataFrame, tmp_path: Path
) -> None:
    preprocessor = DataPreprocessor(configure())
    preprocessor.create_sequences(candles)
    one = preprocessor.symbol_scaler()
    text = ScalerSet(CLOSE_FEATURES, "close", {"BTC/USDT": one, "ETH/USDT": one}).to_json()
    (tmp_path / "scaler.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="2 symbols"):
        preprocessor.load_scaler(tmp_path / "scaler.json")
