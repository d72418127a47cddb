"""Test coverage of intervals, sums of probabilities and the start without evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.research.intervals import (
    Market,
    folds,
    joined,
    read_market,
    reliability,
    score,
    serve,
)
from benchmarks.research.intervals import scaled as constant
from model.forecasts.calibration import Calibration
from model.forecasts.outlook import Outlook
from model.forecasts.residuals import LEVELS, Residuals, SymbolResiduals
from model.forecasts.rules import Rules
from model.forecasts.volatility import WARMUP
from tests.support.tiny_models import random_candles

T0 = 1_776_859_200_000
NORMAL = np.sort(np.random.default_rng(0).normal(0.0, 0.1, len(LEVELS)))
KNOWN = Residuals(by_symbol={"A/U": SymbolResiduals(500, tuple(NORMAL.tolist()))})
SYMBOLS = ("A/U", "B/U")
BOTH = np.arange(2)


def opens(k: int = 2) -> Any:
    return np.full(k, T0, dtype=np.int64)


def primed(rules: Rules | None = None, residuals: Residuals = KNOWN) -> Calibration:
    calibration = Calibration(residuals, SYMBOLS, rules or Rules())
    calibration.prime(BOTH, np.stack([random_candles(WARMUP, seed) for seed in (0, 1)]))
    return calibration


def ask(calibration: Calibration, predicted: float = 100.0, last: float = 100.0) -> Outlook:
    return calibration.outlook(BOTH, np.full(2, predicted), np.full(2, last), opens())


def live(calibration: Calibration, moves: Any, *, asked: bool = True) -> Any:
    """Let both symbols' closes move by ``moves [n, 2]`` in log; the outlooks before each."""
    close = np.full(2, 100.0)
    seen = []
    for move in moves:
        if asked:
            seen.append(calibration.outlook(BOTH, close, close, opens()))
        before, close = close, close * np.exp(move)
        high, low = np.maximum(before, close), np.minimum(before, close)
        calibration.observe(BOTH, np.column_stack([before, high, low, close, np.ones(2)]))
    return seen


def test_a_symbol_of_the_bundle_is_known_at_once_another_after_its_own_residuals() -> None:
    calibration = primed(Rules(min_n=200))
    moves = np.random.default_rng(1).normal(0.0, 1e-3, (201, 2))
    seen = live(calibration, moves)
    assert [outlook.known.tolist() for outlook in seen[:200]] == [[True, False]] * 200
    assert seen[200].known.tolist() == [True, True]
    assert seen[199].messages()[1] == (None, None)
    interval, chances = seen[200].messages()[1]
    assert interval.level == 0.9
    assert interval.lower < 100.0 * np.exp(moves[:200, 1].sum()) < interval.upper
    assert sum(chances[1:]) == pytest.approx(1.0, abs=1e-12)


def test_a_bundle_with_too_few_residuals_is_no_evidence() -> None:
    assert ask(primed(Rules(min_n=501))).known.tolist() == [False, False]
    assert ask(primed(Rules(min_n=500))).known.tolist() == [True, False]


def test_candles_without_a_forecast_change_no_calibration() -> None:
    calibration = primed(Rules(min_n=20))
    live(calibration, np.full((50, 2), 1e-3), asked=False)
    assert ask(calibration).known.tolist() == [True, False]
    # Nor does a forecast whose candle was missed, so that the window began anew.
    before = calibration.snapshot()
    calibration.prime(BOTH, np.stack([random_candles(WARMUP, seed) for seed in (0, 1)]))
    live(calibration, np.full((1, 2), 0.5), asked=False)
    np.testing.assert_array_equal(before.table, calibration.snapshot().table)
    np.testing.assert_array_equal(before.alpha, calibration.snapshot().alpha)


@pytest.mark.parametrize("predicted", [np.nan, np.inf, -np.inf, 0.0, -5.0])
def test_a_value_that_is_no_price_has_no_outlook_and_changes_no_calibration(
    predicted: float,
) -> None:
    calibration = primed()
    before = calibration.snapshot()
    outlook = calibration.outlook(BOTH, np.full(2, predicted), np.full(2, 100.0), opens())
    assert outlook.messages() == [(None, None)] * 2
    live(calibration, np.full((1, 2), 0.5), asked=False)
    np.testing.assert_array_equal(before.table, calibration.snapshot().table)


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(
        st.tuples(*[st.floats(-0.9, 0.9) | st.just(0.0) | st.floats(-1e-9, 1e-9)] * 2),
        max_size=60,
    ),
    off=st.floats(-1.0, 1.0),
    threshold=st.none() | st.floats(1e-6, 0.5),
    min_n=st.integers(2, 30),
)
def test_bounds_and_chances_stay_valid(
    moves: list[tuple[float, float]], off: float, threshold: float | None, min_n: int
) -> None:
    calibration = primed(Rules(min_n=min_n, threshold=threshold))
    live(calibration, np.array(moves).reshape(-1, 2))
    predicted = 100.0 * np.exp(off)
    outlook = ask(calibration, predicted)
    assert outlook.known[0]
    for interval, chances in outlook.messages():
        if interval is None or chances is None:
            continue
        assert 0.0 < interval.lower <= predicted <= interval.upper < np.inf
        assert all(0.0 <= chance <= 1.0 for chance in chances[1:])
        assert sum(chances[1:]) == pytest.approx(1.0, abs=1e-12)
        assert 0.0 <= chances.threshold <= 0.5


def test_a_miss_widens_and_a_hit_narrows_by_gamma() -> None:
    calibration = primed(Rules(gamma=0.005))
    live(calibration, np.array([[0.5, 0.5]]))
    assert calibration.snapshot().alpha[0] == pytest.approx(0.1 + 0.005 * (0.1 - 1.0))
    live(calibration, np.array([[0.0, 0.0]]))
    assert calibration.snapshot().alpha[0] == pytest.approx(0.1 + 0.005 * (0.2 - 1.0))


def test_after_a_burst_the_interval_is_wider_and_in_a_lull_narrower() -> None:
    rng = np.random.default_rng(2)
    width = []
    for size in (3e-4, 3e-3, 3e-2):
        calibration = primed()
        live(calibration, rng.normal(0.0, size, (40, 2)), asked=False)
        outlook = ask(calibration)
        width.append(float(outlook.upper[0] - outlook.lower[0]))
    assert 3.0 * width[0] < width[1] < width[2] / 3.0


def test_intervals_recover_after_a_market_without_movement() -> None:
    calibration = primed(Rules(min_n=200))
    live(calibration, np.zeros((400, 2)))
    moves = np.random.default_rng(3).normal(0.0, 1e-3, (3000, 2))
    seen = live(calibration, moves)
    close = 100.0 * np.exp(np.cumsum(moves[:, 1]))
    inside = [o.lower[1] <= c <= o.upper[1] for o, c in zip(seen, close, strict=True)]
    assert np.mean(inside[1000:]) == pytest.approx(0.9, abs=0.02)


def test_the_chances_are_those_of_the_residuals() -> None:
    """With a scale of 1 the standard normal's: 31 % beyond half a standard deviation."""
    rng = np.random.default_rng(4)
    quantiles = np.quantile(rng.normal(0.0, 1e-2, 200_000), LEVELS)
    entry = SymbolResiduals(500, tuple(quantiles.tolist()))
    flat = Residuals((0.0,) * 4, (0.0,), {"A/U": entry, "B/U": entry})
    outlook = ask(primed(Rules(threshold=np.expm1(0.005)), flat))
    assert outlook.long[0] == pytest.approx(0.3085, abs=0.005)
    assert outlook.short[0] == pytest.approx(0.3072, abs=0.005)
    # A forecast one standard deviation up moves the distribution with it.
    up = ask(primed(Rules(threshold=np.expm1(0.005)), flat), predicted=100.0 * np.exp(0.01))
    assert up.long[0] == pytest.approx(0.6915, abs=0.005)
    assert outlook.upper[0] == pytest.approx(100.0 * np.exp(0.01645), rel=3e-4)
    # Once a candle opens in the loud half of the hour, everything is further apart.
    loud = Residuals((0.0,) * 4, (1.0, 0.0), {"A/U": entry, "B/U": entry})
    wide = ask(primed(None, loud))
    assert np.log(wide.upper[0] / 100.0) == pytest.approx(0.01645 * np.e, rel=1e-2)
    half = calibrated_median(entry)
    assert ask(primed(Rules(multiple=1.0), flat)).threshold[0] == pytest.approx(half)
    assert ask(primed(Rules(multiple=1.0), flat)).neutral[0] == pytest.approx(0.5, abs=0.01)


def calibrated_median(entry: SymbolResiduals) -> float:
    quarter, three = (int(np.argmin(np.abs(LEVELS - p))) for p in (0.25, 0.75))
    return 0.5 * (entry.quantiles[three] - entry.quantiles[quarter])


def test_a_calibration_survives_serialization() -> None:
    rules = Rules(min_n=100)
    calibration = primed(rules)
    moves = np.random.default_rng(5).normal(0.0, 1e-3, (50, 2))
    live(calibration, moves)
    other = primed(rules)
    assert other.restore(calibration.snapshot().encode()) == []
    for ours, theirs in zip(calibration.snapshot()[1:], other.snapshot()[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    more = np.random.default_rng(6).normal(0.0, 1e-3, (60, 2))
    # The volatility comes from the windows, the rest from the bytes.
    for one in (calibration, other):
        one.prime(BOTH, np.stack([random_candles(WARMUP, seed) for seed in (8, 9)]))
    for ours, theirs in zip(live(calibration, more), live(other, more), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert live(other, more[:1])[0].known.all()


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_another_level_is_held_from_the_first_forecast_after_a_restart_on(level: float) -> None:
    states = primed().snapshot().encode()
    anew, restored = primed(Rules(level=level)), primed(Rules(level=level))
    assert restored.restore(states) == []
    np.testing.assert_allclose(ask(restored)[3:5], ask(anew)[3:5], rtol=1e-9)
    # What was saved under that level is taken up under the first one again.
    back = primed()
    assert back.restore(restored.snapshot().encode()) == []
    np.testing.assert_allclose(ask(back)[3:5], ask(primed())[3:5], rtol=1e-9)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"x" * 23,
        b"\xff" * 24,
        np.array([1.0, 500.0, 0.1, *NORMAL[::-1]]).tobytes(),
        np.array([1.0, 500.0, 0.1, *NORMAL[:-1]]).tobytes(),
        np.array([1.0, 5.0, 0.1, *NORMAL]).tobytes(),
        np.array([0.0, 3.0, 0.1, 1.0]).tobytes(),
        np.array([0.0, 1.0, np.nan, 1.0]).tobytes(),
        np.array([1.0, np.inf, 0.1, *NORMAL]).tobytes(),
        np.array([2.0, 500.0, 0.1, *NORMAL]).tobytes(),
    ],
)
def test_a_state_that_does_not_fit_is_ignored(state: bytes) -> None:
    calibration = primed()
    before = calibration.snapshot()
    assert calibration.restore({"A/U": state, "C/U": b""}) == ["A/U"]
    np.testing.assert_array_equal(before.table, calibration.snapshot().table)
    np.testing.assert_array_equal(before.n, calibration.snapshot().n)


@pytest.fixture(scope="module")
def recorded(shared_dir: Path) -> Market:
    """The last two fifths of the recorded minutes: four judged tenths are enough here."""
    market = read_market(shared_dir / "data" / "binance_spot_1m")
    half = slice(len(market.open_ms) // 2, None)
    return Market(
        market.symbols, market.open_ms[half], market.ohlcv[:, half], market.log_close[:, half]
    )


def test_on_recorded_minutes_intervals_cover_and_are_narrower_than_constant_ones(
    recorded: Market,
) -> None:
    cuts = folds(len(recorded.open_ms))
    tested = slice(cuts[0].test.start, cuts[-1].test.stop)
    moves = np.diff(recorded.log_close, axis=1)[:, tested]
    ours = joined([serve(recorded, fold, Rules()) for fold in cuts])
    ones = np.ones_like(recorded.log_close)
    wide = joined([constant(recorded, fold, ones) for fold in cuts])
    inside = (ours.lower <= moves) & (moves <= ours.upper)
    counted = np.cumsum(np.pad(inside, ((0, 0), (1, 0))), axis=1)
    rolling = (counted[:, 2000:] - counted[:, :-2000]) / np.float64(2000)
    assert rolling.min() >= 0.88
    assert rolling.max() <= 0.92
    ratio = score(ours, moves).mean(axis=1) / score(wide, moves).mean(axis=1)
    assert ratio.mean() <= 0.92
    reliable = reliability(ours, moves)
    assert all(abs(given - came) < 0.02 for _, _, given, came in reliable["bins"])
