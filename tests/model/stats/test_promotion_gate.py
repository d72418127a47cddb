"""Test the error rates of the gate and each of its rules."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.stats.long_run_variance import long_run_variance, student_t
from model.stats.promotion_gate import (
    ALPHA,
    POWER,
    Decision,
    GateRules,
    Losses,
    decide,
    paired_losses,
)
from model.stats.scores import Scored
from tests.model.stats.test_bootstrap import correlated

QUARTER_MS = 900_000
RULES = GateRules(gate_days=7, margin=0.002, max_age_days=30)
SYMBOLS = 3
CANDLES = 2000


def losses(rng: np.random.Generator, gain: float = 0.0, candles: int = CANDLES) -> Losses:
    """A market whose symbols move together, calm and wild in turns.

    What is better about the challenger, ``gain`` in the long run, comes in runs as well.
    """
    shape = candles, SYMBOLS
    volatility = np.exp(0.5 * correlated(rng, (candles, 1), 0.98))
    last_value = volatility * np.abs(rng.normal(size=shape))
    common = correlated(rng, (candles, 1), 0.3)
    noise = volatility * (np.sqrt(0.55) * common + np.sqrt(0.45) * rng.normal(size=shape))
    champion = 1.001 * last_value
    challenger = champion - 0.02 * noise - gain * last_value
    return Losses(
        symbol=np.tile(np.arange(SYMBOLS), candles),
        open_ms=np.repeat(np.arange(candles) * QUARTER_MS, SYMBOLS),
        last_value=last_value.ravel(),
        challenger=challenger.ravel(),
        champion=champion.ravel(),
    )


@cache
def decisions(count: int, gain: float = 0.0) -> list[Decision]:
    rng = np.random.default_rng(20261123)
    return [decide(losses(rng, gain), RULES, QUARTER_MS) for _ in range(count)]


def share(found: list[Decision], rule: str) -> float:
    return float(np.mean([d.rule == rule for d in found]))


def test_the_false_promotion_rate_is_as_specified() -> None:
    found = decisions(300)
    # 300 trials of 0.05 scatter by 0.013.
    assert 0.01 < share(found, "better") <= ALPHA + 0.04
    assert share(found, "symbol_worse") <= ALPHA + 0.04
    assert all(d.promote == (d.rule == "better") for d in found)


def test_the_standard_error_equals_the_scatter_of_the_gain() -> None:
    found = decisions(300)
    gains = np.array([d.gain for d in found])
    variances = np.array([d.standard_error**2 for d in found])
    assert np.sqrt(variances.mean()) == pytest.approx(gains.std(), rel=0.15)
    assert abs(gains.mean()) < 4 * gains.std() / np.sqrt(len(gains))


def test_treating_forecasts_as_independent_would_promote_noise() -> None:
    rng = np.random.default_rng(7)
    promoted = []
    for _ in range(100):
        drawn = losses(rng)
        apart = drawn._replace(
            symbol=np.zeros_like(drawn.symbol), open_ms=rng.permutation(len(drawn.open_ms))
        )
        promoted.append(decide(apart, RULES, QUARTER_MS).rule == "better")
    assert np.mean(promoted) > 2 * ALPHA


def test_the_detection_rate_is_as_specified() -> None:
    detectable = float(np.mean([d.detectable for d in decisions(300)]))
    seen = share(decisions(200, detectable), "better")
    # 200 trials of 0.8 scatter by 0.028.
    assert seen == pytest.approx(POWER, abs=0.1)
    assert share(decisions(50, -detectable), "better") == 0.0


@pytest.mark.parametrize("phi", [-0.3, 0.0, 0.5])
def test_the_variance_of_an_autocorrelated_series(phi: float) -> None:
    rng = np.random.default_rng(1)
    series = correlated(rng, (1000, 300), phi)
    found = [long_run_variance(one)[0] for one in series.T]
    truth = (1 + phi) / (1 - phi)
    assert np.mean(found) == pytest.approx(truth, rel=0.08)
    assert 1000 * series.mean(axis=0).var() == pytest.approx(truth, rel=0.25)


def test_students_t_is_the_tables() -> None:
    table = {(0.95, 8): 1.8595, (0.95, 30): 1.6973, (0.8, 10): 0.8791, (0.99, 60): 2.3901}
    for (level, degrees), value in table.items():
        assert student_t(level, degrees) == pytest.approx(value, abs=2e-4)
    assert student_t(0.999, 8) == pytest.approx(4.5008, abs=2e-3)
    assert student_t(0.05, 12) == pytest.approx(-student_t(0.95, 12))


def even(
    ratio: float, champion: float | None, *, candles: int = CANDLES, wobble: float = 0.01
) -> Losses:
    """One calm symbol on which the models err by known ratios, up to a small wobble."""
    rng = np.random.default_rng(3)
    last_value = 1e-3 * rng.uniform(0.9, 1.1, candles)
    wobbly = last_value * wobble * rng.normal(size=candles)
    return Losses(
        symbol=np.zeros(candles, dtype=np.int64),
        open_ms=np.arange(candles) * QUARTER_MS,
        last_value=last_value,
        challenger=ratio * last_value + wobbly,
        champion=None if champion is None else champion * last_value,
    )


@pytest.mark.parametrize(
    ("ratio", "champion", "age_days", "rule"),
    [
        (0.990, 1.000, 1, "better"),
        (1.000, 1.000, 1, "not_better"),
        (1.001, 1.000, 1, "symbol_worse"),
        (1.000, 1.000, 29, "not_better"),
        (1.000, 1.000, 31, "renewed"),
        # Not inferior by the margin, but beyond noise: then the champion is better.
        (0.998, 0.997, 31, "not_better"),
        (1.010, 1.000, 31, "symbol_worse"),
        (0.990, 0.980, 31, "not_better"),
        (1.000, None, 0, "first"),
        (0.900, None, 0, "first"),
        (1.010, None, 0, "first_refused"),
    ],
)
def test_each_rule(ratio: float, champion: float | None, age_days: float, rule: str) -> None:
    # With so small a wobble every case is clear.
    made = decide(even(ratio, champion, wobble=0.01), RULES, QUARTER_MS, age_days)
    assert made.rule == rule
    assert made.promote == (rule in {"better", "renewed", "first"})
    assert made.challenger_ratio == pytest.approx(ratio, abs=1e-3)
    assert (made.champion_ratio is None) == (champion is None)
    assert f"{made.challenger_ratio:.6f}" in made.reason


def test_noise_as_wide_as_the_margin_proves_nothing() -> None:
    loud = even(1.0, 1.0, wobble=0.2)
    assert decide(loud, RULES, QUARTER_MS, 31).rule == "not_better"
    assert decide(even(1.0, None, wobble=0.2), RULES, QUARTER_MS).rule == "first_refused"


def test_too_little_evidence_keeps_the_champion_for_any_gain() -> None:
    week = 7 * 96
    made = decide(even(0.5, 1.0, candles=week - 1), RULES, QUARTER_MS, 1000)
    assert (made.rule, made.promote) == ("too_few", False)
    assert "671 candles over 7.0 days" in made.reason
    assert decide(even(0.5, 1.0, candles=week), RULES, QUARTER_MS).rule == "better"
    weekly = decide(even(0.5, None, candles=99), RULES, 7 * 86_400_000)
    assert weekly.rule == "too_few"
    nothing = Losses(np.array([], int), np.array([], int), np.array([]), np.array([]), None)
    assert decide(nothing, RULES, QUARTER_MS).rule == "too_few"


@pytest.mark.parametrize("timeframe_ms", [60_000, QUARTER_MS, 3_600_000, 14_400_000, 86_400_000])
def test_the_judging_span_is_long_enough_at_every_timeframe(timeframe_ms: int) -> None:
    kept = RULES.candles(timeframe_ms)
    assert decide(even(0.5, 1.0, candles=kept), RULES, timeframe_ms).rule == "better"
    assert decide(even(0.5, 1.0, candles=kept - 1), RULES, timeframe_ms).rule == "too_few"


def joined_with(losses: Losses, other: Losses, first: int) -> Losses:
    """Losses of more symbols, whose numbers begin with ``first``."""
    assert losses.champion is not None
    assert other.champion is not None
    return Losses(
        np.concatenate([losses.symbol, other.symbol + first]),
        np.concatenate([losses.open_ms, other.open_ms]),
        np.concatenate([losses.last_value, other.last_value]),
        np.concatenate([losses.challenger, other.challenger]),
        np.concatenate([losses.champion, other.champion]),
    )


def test_one_worse_symbol_is_not_outweighed_by_the_others() -> None:
    good, bad = even(0.90, 1.0), even(1.05, 1.0)
    joined = joined_with(good, bad, 4)
    made = decide(joined, RULES, QUARTER_MS)
    assert made.gain > 0.02
    assert (made.rule, made.worse, made.promote) == ("symbol_worse", (4,), False)
    # Worse than a good champion, but still better than the last value: no harm done.
    mild = joined._replace(
        challenger=np.concatenate([good.challenger, 0.95 * bad.last_value]),
        champion=np.concatenate([good.champion, 0.90 * bad.last_value]),
    )
    assert decide(mild, RULES, QUARTER_MS).rule == "better"


@pytest.mark.parametrize("candles", [1, 2, 99])
def test_a_symbol_of_a_few_candles_does_not_block_a_promotion(candles: int) -> None:
    joined = joined_with(even(0.90, 1.0), even(1.5, 1.0, candles=candles), 1)
    assert decide(joined, RULES, QUARTER_MS).rule == "better"


def test_a_market_that_stands_still_is_no_evidence() -> None:
    still = even(1.0, 1.0)
    zero = np.zeros(CANDLES)
    for champion in (zero, None):
        made = decide(
            still._replace(last_value=zero, challenger=zero + 1e-3, champion=champion),
            RULES,
            QUARTER_MS,
            1000,
        )
        assert (made.rule, made.gain, made.standard_error) == ("too_few", 0.0, 0.0)
        assert "no close has moved" in made.reason


def test_losses_that_are_not_finite_are_refused() -> None:
    spoilt = even(1.0, 1.0)
    spoilt.challenger[5] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        decide(spoilt, RULES, QUARTER_MS)


@given(st.permutations(range(60)), st.booleans())
def test_the_order_of_losses_does_not_matter(order: list[int], champion: bool) -> None:  # noqa: FBT001
    drawn = losses(np.random.default_rng(2), candles=20)
    if not champion:
        drawn = drawn._replace(champion=None)
    shuffled = Losses._make(None if a is None else a[order] for a in drawn)
    rules = replace(RULES, gate_days=0)
    one, other = (
        asdict(decide(drawn, rules, QUARTER_MS)),
        asdict(decide(shuffled, rules, QUARTER_MS)),
    )
    for name, value in one.items():
        assert other[name] == (pytest.approx(value) if isinstance(value, float) else value)


def scored(symbols: list[int], opens: list[int], predicted: list[float]) -> Scored:
    n = len(symbols)
    return Scored(
        np.array(symbols),
        np.array(opens),
        np.full(n, 100.0),
        np.full(n, 102.0),
        np.array(predicted),
    )


def test_only_forecasts_that_both_made_are_compared() -> None:
    challenger = scored([0, 0, 1], [10, 20, 20], [101.0, 102.0, 104.0])
    champion = scored([1, 1, 0], [30, 20, 20], [100.0, 99.0, 103.0])
    found = paired_losses(challenger, champion)
    rows = sorted(zip(found.symbol.tolist(), found.open_ms.tolist(), strict=True))
    assert rows == [(0, 20), (1, 20)]
    by_symbol = np.argsort(found.symbol)
    assert found.champion is not None
    assert found.last_value == pytest.approx([0.02, 0.02])
    assert found.challenger[by_symbol] == pytest.approx([0.0, 0.02])
    assert found.champion[by_symbol] == pytest.approx([0.01, 0.03])
    alone = paired_losses(challenger, None)
    assert alone.champion is None
    assert alone.challenger == pytest.approx([0.01, 0.0, 0.02])
