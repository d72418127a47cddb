from __future__ import annotations

import numpy as np
import pytest

from model.forecasts.volatility import N_FEATURES, WARMUP, Volatility, history_features
from tests.support.tiny_models import random_candles

ALL = np.arange(2)


@pytest.fixture(scope="module")
def candles() -> np.ndarray:
    return np.stack([random_candles(WARMUP + 60, seed) for seed in (0, 1)])


def test_one_candle_at_a_time_equals_the_whole_history(candles: np.ndarray) -> None:
    streamed = Volatility(2)
    streamed.prime(ALL, candles[:, :WARMUP])
    for row in range(WARMUP, WARMUP + 60):
        streamed.observe(ALL, candles[:, row])
    batch = np.stack([history_features(ohlcv)[-1] for ohlcv in candles])
    np.testing.assert_allclose(streamed.features(ALL), batch, rtol=0, atol=1e-8)


def test_where_the_window_begins_does_not_matter(candles: np.ndarray) -> None:
    long, short = Volatility(2), Volatility(2)
    long.prime(ALL, candles)
    short.prime(ALL, candles[:, -WARMUP:])
    np.testing.assert_allclose(long.features(ALL), short.features(ALL), rtol=0, atol=1e-8)


def test_only_the_symbols_named_move(candles: np.ndarray) -> None:
    bank = Volatility(2)
    bank.prime(ALL, candles)
    before = bank.features(ALL)
    bank.observe(np.array([1]), candles[1:, 0] * [[1, 2, 1, 1, 1]])
    after = bank.features(ALL)
    np.testing.assert_array_equal(before[0], after[0])
    assert after[1, 0] > before[1, 0]
    assert after[1, 3] == pytest.approx(max(after[1, 0] - after[1, 1], 0.0))


def test_a_market_without_a_trade_has_finite_features() -> None:
    bank = Volatility(2)
    still = np.full((2, WARMUP, 5), 7.0)
    still[..., 4] = 0.0
    bank.prime(ALL, still)
    assert np.isfinite(bank.features(ALL)).all()
    assert bank.features(ALL).shape == (2, N_FEATURES)
    bank.observe(ALL, np.array([[7.0, 9.0, 6.0, 8.0, 1e9]] * 2))
    assert np.isfinite(bank.features(ALL)).all()
