"""Test scalers against scikit-learn, and strict parsing of their JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.core.errors import BundleError
from model.features.scaler import ScalerSet, SymbolScaler

NAMES = ("close", "volume", "rsi_14")
FINITE = st.floats(-1e12, 1e12)


def some_set() -> ScalerSet:
    btc = SymbolScaler(np.array([1.0, 0.0, 20.0]), np.array([3.0, 8.0, 20.0]), 0.5, 2.0)
    eth = SymbolScaler(np.array([0.1, 1 / 3, 0.0]), np.array([0.3, 1e9, 100.0]), -1e-5, 1e-3)
    return ScalerSet(NAMES, "close", {"BTC/USDT": btc, "ETH/USDT": eth})


@settings(deadline=None)
@given(arrays(np.float64, (7, 3), elements=FINITE), arrays(np.float64, (5, 3), elements=FINITE))
def test_scaled_values_are_those_of_scikit_learn_to_the_last_bit(
    fitted: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]
) -> None:
    from sklearn.preprocessing import MinMaxScaler

    reference = MinMaxScaler().fit(fitted)
    scaler = SymbolScaler(reference.data_min_, reference.data_max_, 0.0, 1.0)
    bound = ScalerSet(NAMES, "close", {"X": scaler}).bind(["X"])
    got = bound.scale(np.zeros(5, np.int64), rows)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, reference.transform(rows).astype(np.float32))


def test_each_row_is_scaled_by_its_own_symbol() -> None:
    bound = some_set().bind(["ETH/USDT", "BTC/USDT"])
    rows = np.array([[2.0, 4.0, 21.0], [0.2, 1 / 3, 50.0], [4.0, 4.0, 20.0]])
    idx = np.array([1, 0, 1])
    np.testing.assert_allclose(
        bound.scale(idx, rows), [[0.5, 0.5, 1.0], [0.5, 0.0, 0.5], [1.5, 0.5, 0.0]], atol=1e-7
    )
    expected = [[False, False, True], [False, False, False], [True, False, False]]
    np.testing.assert_array_equal(bound.out_of_range(idx, rows), expected)
    raw = np.array([1.0, 2.0, 0.0], np.float32)
    np.testing.assert_allclose(bound.unscale_target(idx, raw), [2.5, 2e-3 - 1e-5, 0.5])


def test_json_keeps_every_bit() -> None:
    text = some_set().to_json()
    again = ScalerSet.from_json(text)
    assert again.to_json() == text
    assert (again.features, again.target) == (NAMES, "close")
    eth = again.by_symbol["ETH/USDT"]
    assert eth.feature_min[1] == 1 / 3


def test_an_unknown_symbol_is_named() -> None:
    with pytest.raises(BundleError, match=r"not trained for DOGE/USDT, only for BTC/USDT, ETH"):
        some_set().bind(["BTC/USDT", "DOGE/USDT"])


def test_ranges_must_be_of_one_length() -> None:
    for low, high in ((np.zeros(2), np.ones(3)), (np.zeros(0), np.zeros(0)), (np.zeros(()),) * 2):
        with pytest.raises(BundleError, match="one length"):
            SymbolScaler(low, high, 0.0, 1.0)


def damaged(path: tuple[str, ...], value: object) -> str:
    document: Any = json.loads(some_set().to_json())
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(document)


BTC = ("symbols", "BTC/USDT")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"features": [], "features": []}',
        damaged((*BTC, "target_scale"), 0.0),
        damaged((*BTC, "target_scale"), -1.0),
        damaged((*BTC, "target_scale"), None),
        damaged((*BTC, "target_scale"), "1"),
        damaged((*BTC, "target_scale"), True),  # noqa: FBT003
        damaged((*BTC, "target_offset"), float("nan")),
        damaged((*BTC, "target_offset"), 10**400),
        damaged((*BTC, "feature_min"), [1.0, 2.0]),
        damaged((*BTC, "feature_min"), [1.0, float("inf"), 2.0]),
        damaged((*BTC, "feature_min"), [9.0, 9.0, 9.0]),
        damaged((*BTC, "feature_min"), {}),
        damaged((*BTC, "more"), 1),
        damaged(("symbols",), {}),
        damaged(("symbols", "BTC/USDT"), []),
        damaged(("features",), ["close", "volume"]),
        damaged(("features",), ["close", "volume", 3]),
        damaged(("target",), "open"),
        damaged(("version",), 2),
        some_set().to_json().replace("0.5", "1e999"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"^scaler\.json"):
        ScalerSet.from_json(text)


@given(st.text() | st.binary())
def test_no_text_raises_anything_but_a_bundle_error(text: str | bytes) -> None:
    with pytest.raises(BundleError):
        ScalerSet.from_json(text)
