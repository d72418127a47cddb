from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.stats.bootstrap import Floats, block_length, estimate_ratio

TRUTH = 1.02


def correlated(rng: np.random.Generator, shape: tuple[int, ...], phi: float) -> Floats:
    """AR(1) along the first axis with variance 1."""
    values: Floats = rng.normal(size=shape)
    for t in range(1, shape[0]):
        values[t] = phi * values[t - 1] + np.sqrt(1 - phi**2) * values[t]
    return values


def losses(n: int, series: int, phi: float) -> tuple[Floats, Floats]:
    """Losses ``[n, series]`` of a model, `TRUTH` times the last value's in the long run.

    Volatility comes in runs, and so, by ``phi``, do the model's good and bad hours.
    """
    rng = np.random.default_rng(5)
    calm = np.exp(0.5 * correlated(rng, (n, series), 0.95))
    last_value = calm * np.abs(rng.normal(size=(n, series)))
    return last_value * (TRUTH + 0.05 * correlated(rng, (n, series), phi)), last_value


def coverage(phi: float, trials: int = 150) -> float:
    model, last_value = losses(800, trials, phi)
    found = [estimate_ratio(*pair, seed) for seed, pair in enumerate(zip(model.T, last_value.T))]  # noqa: B905
    return float(np.mean([e.low <= TRUTH <= e.high for e in found]))


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
def test_the_coverage_of_the_interval_is_as_stated(phi: float) -> None:
    # 150 trials of 0.95 scatter by 0.018; strongly correlated series of 800 cost some coverage.
    assert 0.88 <= coverage(phi) <= 0.995


def test_drawing_single_candles_underestimates_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.stats.bootstrap.block_length", lambda _: 1)
    assert coverage(0.8, trials=30) < 0.75


def test_block_length_follows_the_autocorrelation() -> None:
    rng = np.random.default_rng(3)
    lengths = [block_length(correlated(rng, (4000,), phi)) for phi in (0.0, 0.6, 0.9, 0.97)]
    assert lengths == sorted(lengths)
    assert lengths[0] == 16
    # Politis and White's optimum for an AR(1): (1.5·(2φ/(1-φ²))²·n)^(1/3), here 59 and 107.
    assert 40 < lengths[2] < 90
    assert 16 < lengths[1] < 40


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80))
def test_every_series_has_a_block_length(values: list[float]) -> None:
    assert 1 <= block_length(np.array(values)) <= len(values)


def test_a_negatively_correlated_series_has_the_least_block_length() -> None:
    noise = np.random.default_rng(2).normal(size=1001)
    assert block_length(np.diff(noise)) == 10


def test_the_same_seed_gives_the_same_interval() -> None:
    model, last_value = (loss[:, 0] for loss in losses(300, 1, 0.0))
    first = estimate_ratio(model, last_value, seed=1)
    assert first == estimate_ratio(model, last_value, seed=1)
    assert first.low != estimate_ratio(model, last_value, seed=2).low
    assert first.low < first.value < first.high


def test_nothing_to_divide_by_gives_no_estimate() -> None:
    assert np.isnan(estimate_ratio(np.ones(9), np.zeros(9))).all()


def test_an_event_that_a_resample_may_miss_has_no_interval() -> None:
    seldom = np.zeros(100)
    seldom[50] = 1.0
    estimate = estimate_ratio(seldom, seldom)
    assert estimate.value == 1.0
    assert np.isnan(estimate[1:]).all()
