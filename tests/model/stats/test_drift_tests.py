"""Test that drift is detected soon and that no drift raises no alarm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness.candles import read_folder
from model.features.definitions import LOG_RETURN_FEATURES, Indicators
from model.features.streaming import FeatureBank
from model.stats.drift_tests import MIN_CANDLES, ErrorDrift, FeatureDrift, stability

Floats = np.ndarray[Any, np.dtype[np.float64]]
MINUTE_S = 60.0
WEEK = 7 * 1_440


def market(rows: int, seed: int, strengths: tuple[float, float]) -> tuple[Floats, Floats]:
    """Forecasts of no skill and returns with heavy tails whose size comes in runs, ``[1, rows]``.

    The forecasts move by the first of the strengths times as much as the market usually does, by
    the second in the second half.
    """
    rng = np.random.default_rng(seed)
    size = 5e-4 * np.exp(0.5 * np.repeat(rng.normal(size=rows // 200 + 1), 200)[:rows])
    strength = np.repeat(strengths, [rows // 2, rows - rows // 2])
    return (strength * size * rng.normal(size=rows))[None], (size * rng.standard_t(3.5, rows))[None]


def alarms(forecast: Floats, returns: Floats, watch: ErrorDrift | None = None) -> list[int]:
    """Candles at which there was an alarm, forecasting ``returns``, both ``[symbols, rows]``."""
    watch = watch or ErrorDrift()
    errors = np.abs(forecast - returns).mean(axis=0)
    last_value = np.abs(returns).mean(axis=0)
    pairs = zip(errors.tolist(), last_value.tolist(), strict=True)
    return [at for at, pair in enumerate(pairs) if watch.add_errors(*pair)]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.5))
def test_a_model_that_stays_as_bad_as_it_is_raises_no_alarm(seed: int, size: float) -> None:
    assert alarms(*market(20_000, seed, (size, size))) == []


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1.0, 4.0))
def test_a_model_that_has_become_worse_is_found(seed: int, worse: float) -> None:
    found = alarms(*market(8_000, seed, (0.1, worse)))
    assert found
    assert 4_000 < found[0] < 4_600


def test_a_volatile_market_alone_raises_no_alarm() -> None:
    _, returns = market(8_000, 3, (0.0, 0.0))
    returns[:, 5_000:] *= 10.0
    assert alarms(-0.05 * np.roll(returns, 1, axis=1), returns) == []


def test_one_extreme_candle_raises_no_alarm_and_every_value_is_finite() -> None:
    watch = ErrorDrift()
    assert not any(watch.add_errors(0.0, 0.0) for _ in range(10))
    for error in market(3_000, 1, (0.0, 0.0))[1][0].tolist():
        assert not watch.add_errors(1.001 * abs(error), abs(error))
    assert not watch.add_errors(1e6, 1e-9)
    assert math.isfinite(watch.score)


def test_after_an_alarm_the_test_is_reset() -> None:
    watch = ErrorDrift()
    (at,) = alarms(*market(12_000, 5, (0.1, 3.0)), watch)
    assert 6_000 < at < 6_600
    assert watch.score < 1.0


@pytest.fixture(scope="module")
def recorded(shared_dir: Path) -> Floats:
    """A month of minutes of five symbols, ``[5, rows, 5]``."""
    frames = read_folder(shared_dir / "data" / "binance_spot_1m").values()
    names = ["open", "high", "low", "close", "volume"]
    return np.stack([frame[names].to_numpy(np.float64) for frame in frames])


def test_a_recorded_month_raises_no_alarm_until_the_model_breaks(recorded: Floats) -> None:
    returns = np.diff(np.log(recorded[..., 3]), axis=1)
    before, now = returns[:, :-1], returns[:, 1:]
    usual = np.abs(returns).mean()
    for strength in (-0.1, -0.05, 0.02, 0.3):
        assert alarms(strength * before, now) == []
    rng = np.random.default_rng(0)
    for broken in (0.3 * before, np.full(before.shape, 0.3 * usual), rng.normal(0, usual, (5, 1))):
        forecast = -0.05 * before
        forecast[:, 20_000:] = np.broadcast_to(broken, before.shape)[:, 20_000:]
        found = alarms(forecast, now)
        assert found
        assert 20_000 < found[0] < 20_200


def shown(watch: FeatureDrift, rows: Floats, start_s: float = 0.0) -> list[float]:
    """Days after ``start_s`` at which there was an alarm; ``rows [minutes, k, F]``."""
    return [
        at / 1_440
        for at in range(0, len(rows), 60)
        if watch.add_rows(
            rows[at : at + 60].reshape(-1, rows.shape[2]).astype(np.float32),
            start_s + (at + 60) * MINUTE_S,
        )
    ]


def wandering(rows: int, seed: int) -> Floats:
    """Features as indicators are: each leans on its predecessor, with a daily rhythm."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, 0.05, (rows, 3, 2))
    for at in range(1, rows):
        noise[at] += 0.9 * noise[at - 1]
    rhythm = 0.1 * np.sin(2 * np.pi * np.arange(rows) / 1_440)[:, None, None]
    made: Floats = 0.5 + noise + rhythm
    return made


def test_features_that_only_have_their_daily_rhythm_raise_no_alarm_and_a_shift_does() -> None:
    watch = FeatureDrift(2, 0.0)
    calm = wandering(WEEK + 6 * 1_440, 1)
    early = 5 * 1_440
    assert shown(watch, calm[:early]) == []
    # A restart in the middle makes no difference, even with another clock.
    now_s = early * MINUTE_S
    watch = FeatureDrift.from_arrays(FeatureDrift.to_arrays(watch, now_s), 2, now_s)
    assert shown(watch, calm[early:], now_s) == []
    assert watch.scores.max() < 0.1
    shifted = wandering(4 * 1_440, 2)
    shifted[:, :, 1] += 0.25
    (days,) = shown(watch, shifted, len(calm) * MINUTE_S)
    assert days < 3.0
    assert watch.scores[0] < 0.2
    assert watch.scores[1] > 0.5


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 3e38])
def test_rows_that_cannot_be_scaled_raise_nothing(odd: float) -> None:
    watch = FeatureDrift(2, 0.0)
    rows = np.array([[0.1, 0.2], [odd, 0.3], [0.4, 0.5]], dtype=np.float32)
    assert not watch.add_rows(rows, 1.0)
    counted = 3 if math.isfinite(odd) else 2
    assert watch.to_arrays(1.0)["reference"].sum(axis=1).tolist() == [counted, counted]


def test_counts_of_other_features_are_refused() -> None:
    with pytest.raises(ValueError, match="another set of features"):
        FeatureDrift.from_arrays(FeatureDrift(3, 0.0).to_arrays(0.0), 2, 0.0)


def test_without_enough_rows_there_is_no_alarm() -> None:
    watch = FeatureDrift(2, 0.0)
    few = np.ones((1, 2), dtype=np.float32)
    for day in range(100):
        assert not watch.add_rows(few * (day > 50), day * 86_400.0)
    assert np.isnan(watch.scores).all()


@given(st.lists(st.integers(0, 1_000), min_size=20, max_size=20).filter(any), st.integers(2, 50))
def test_the_index_is_that_of_its_definition(counts: list[int], factor: int) -> None:
    reference = np.array([counts])
    np.testing.assert_allclose(stability(reference, reference), 0.0, atol=1e-12)
    other = np.roll(reference, 7, axis=1)
    assert stability(reference, other)[0] >= 0.0
    # Ten classes that are just as many bins: the textbook formula.
    ten = np.full((1, 10), 1_000)
    now = np.array([[(at + 1) * factor for at in range(10)]])
    p, q = ((x[0] + 0.5) / (x[0] + 0.5).sum() for x in (ten, now))
    assert stability(ten, now)[0] == pytest.approx(float(((q - p) * np.log(q / p)).sum()))


def test_the_features_of_recorded_weeks_stay_below_the_alarm_and_doubled_ranges_do_not(
    recorded: Floats,
) -> None:
    bank = FeatureBank(LOG_RETURN_FEATURES, Indicators(), 5)
    features = bank.prime(np.arange(5), recorded[:, :26_000])[:, MIN_CANDLES:]
    low, high = (f(features[:, :WEEK], axis=1, keepdims=True) for f in (np.min, np.max))
    rows = ((features - low) / (high - low)).transpose(1, 0, 2)
    watch = FeatureDrift(len(LOG_RETURN_FEATURES), 0.0)
    assert shown(watch, rows) == []
    assert 0.0 < watch.scores.max() < 0.5

    wilder = rows.copy()
    column = LOG_RETURN_FEATURES.index("hl_range")
    wilder[2 * WEEK :, :, column] *= 2.0
    found = shown(FeatureDrift(len(LOG_RETURN_FEATURES), 0.0), wilder)
    assert found
    assert 14.0 < found[0] < 17.0
