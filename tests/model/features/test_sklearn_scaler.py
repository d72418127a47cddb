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

from model.core.errors import BundleError
from model.features.batch import level_free_columns
from model.features.definitions import CLOSE_FEATURES, LOG_RETURN_FEATURES
from model.features.scaler import ScalerSet
from model.preprocess import DataPreprocessor

Configure = Callable[..., Path]
DEFAULTS = Path(__file__).resolve().parents[3] / "config" / "config.yaml"


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


def _bomb() -> object:
    """A few hundred bytes that are billions of numbers once written out."""
    part: object = 1.0
    for _ in range(31):
        part = (part, part)
    return part


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
        # Its one part is called number 268435455: room would be made for all before it.
        b"\x80\x03Nr\xff\xff\xff\x0f.",
        pickle.dumps(_scaler_with(data_min_=_bomb())),
        pickle.dumps(_scaler_with(data_max_=_bomb())),
        pickle.dumps(_scaler_with(feature_names_in_=_bomb())),
        pickle.dumps(_scaler_with(target_name_=_bomb(), target_offset_=0.0, target_scale_=1.0)),
        b"\x80\x04P1\n.",
        b"not a pickle",
        b"",
        b"\x00" * ((1 << 20) + 1),
    ],
    ids=range(23),
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
