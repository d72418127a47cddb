"""The rolling figures equal numpy's over their window."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import daemon.scoring.rolling
from daemon.scoring.rolling import (
    NO,
    UNKNOWN,
    YES,
    RollingPool,
    RollingRatios,
    RollingShares,
    ratio_of_sums,
)

MINUTE = 60_000
FIRST = np.array([0])
CODES = {True: YES, False: NO, None: UNKNOWN}


def answer(*values: bool | None) -> NDArray[np.int8]:
    return np.array([CODES[value] for value in values], np.int8)


errors = st.floats(0.0, 1.0, width=32, allow_subnormal=False)


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(errors, errors), max_size=60), window=st.integers(2, 12))
def test_the_rolling_ratio_equals_numpy_on_the_window(
    pairs: list[tuple[float, float]], window: int
) -> None:
    ratios = RollingRatios(window)
    ratios.resize(1)
    for count, pair in enumerate(pairs, start=1):
        ratios.add(FIRST, *np.array(pair).reshape(2, 1))
        x, y = np.array(pairs[max(0, count - window) : count]).T
        [got] = ratios.skills(FIRST)
        if len(x) < 2 or y.sum() < 1e-3:
            continue
        assert got is not None
        r = x.sum() / y.sum()
        spread = np.sqrt(((x - r * y) ** 2).sum() / (len(x) - 1))
        expected = (r, spread / np.sqrt(len(x)) / y.mean(), len(x))
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(
    answers=st.lists(st.sampled_from([True, False, None]), max_size=60), window=st.integers(1, 12)
)
def test_the_rolling_share_equals_the_mean_of_the_window(
    answers: list[bool | None], window: int
) -> None:
    shares = RollingShares(window)
    shares.resize(1)
    for count, newest in enumerate(answers, start=1):
        shares.add(FIRST, answer(newest))
        held = [a for a in answers[max(0, count - window) : count] if a is not None]
        share, n = shares.get(0)
        assert n == len(held)
        assert share == (pytest.approx(np.mean(held)) if held else None)


@settings(deadline=None)
@given(
    updates=st.lists(
        st.tuples(
            st.integers(0, 15),
            st.floats(0.125, 1.0, width=16),
            st.sampled_from([True, False, None]),
            st.sampled_from([True, False, None]),
        ),
        max_size=80,
    ),
    window=st.integers(2, 9),
)
def test_the_pool_equals_per_candle_averages_of_the_newest_candles(
    updates: list[tuple[int, float, bool | None, bool | None]], window: int
) -> None:
    pool = RollingPool(window)
    oracle: dict[int, list[tuple[float, bool | None, bool | None]]] = {}
    for slot, error, hit, inside in updates:
        errors = np.array([error])
        pool.add(slot * MINUTE, errors, 2.0 * errors, answer(hit), answer(inside))
        if slot in oracle or len(oracle) < window or slot > min(oracle):
            if slot not in oracle and len(oracle) == window:
                del oracle[min(oracle)]
            oracle.setdefault(slot, []).append((error, hit, inside))
    flat = [entry for entries in oracle.values() for entry in entries]
    hits = [hit for _, hit, _ in flat if hit is not None]
    insides = [inside for _, _, inside in flat if inside is not None]
    for (share, n), held in ((pool.direction(), hits), (pool.coverage(), insides)):
        assert n == len(held)
        assert share == (pytest.approx(np.mean(held)) if held else None)
    skill = pool.skill()
    if len(oracle) >= 2:
        assert skill == pytest.approx((0.5, 0.0, len(oracle)), abs=1e-7)
    else:
        assert skill is None


def _sums(x: np.ndarray, y: np.ndarray) -> tuple[int, float, float, float, float, float]:
    return len(x), x.sum(), y.sum(), x @ x, x @ y, y @ y


def test_the_standard_error_is_the_spread_of_the_ratio() -> None:
    rng = np.random.default_rng(11)
    ratios, stderrs = [], []
    for _ in range(2000):
        y = np.abs(rng.normal(size=300))
        skill = ratio_of_sums(*_sums(y * rng.uniform(0.7, 1.3, size=300), y))
        assert skill is not None
        ratios.append(skill.mae_ratio)
        stderrs.append(skill.stderr)
    assert np.mean(stderrs) == pytest.approx(np.std(ratios), rel=0.08)


def test_symbols_that_move_together_do_not_count_as_independent() -> None:
    rng = np.random.default_rng(12)
    ratios, stderrs, naive = [], [], []
    for _ in range(300):
        shared = rng.normal(size=(200, 1)) + 0.5 * rng.normal(size=(200, 20))
        y = np.abs(shared)
        x = np.abs(shared - 0.5 * rng.normal(size=(200, 1)))
        pool = RollingPool(200)
        for slot in range(200):
            pool.add(slot, x[slot], y[slot], *np.zeros((2, 20), np.int8))
        skill, single = pool.skill(), ratio_of_sums(*_sums(x.ravel(), y.ravel()))
        assert skill is not None
        assert single is not None
        ratios.append(skill.mae_ratio)
        stderrs.append(skill.stderr)
        naive.append(single.stderr)
    assert np.mean(stderrs) == pytest.approx(np.std(ratios), rel=0.15)
    assert np.mean(naive) < 0.6 * np.std(ratios)


def test_the_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(daemon.scoring.rolling)
    assert (result.failed, result.attempted >= 9) == (0, True)
