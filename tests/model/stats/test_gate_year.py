"""Test the gate over a year of nights whose candles overlap by six of seven days."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from model.stats.promotion_gate import GateRules, Losses, decide
from tests.support.tiny_models import Floats

HOUR_MS = 3_600_000
DAY = 24
WEEK = 7 * DAY
STDERR = 0.0005
"""Of a week's gain, as on recorded minutes of five symbols."""

SPREAD = 0.0003
"""By how much retrains differ in true skill, a standard deviation."""

RULES = GateRules(gate_days=7, margin=0.002, max_age_days=30)


class Model(NamedTuple):
    """A model's skill (one minus its true error ratio) and its noise per candle."""

    skill: float
    noise: Floats
    born: int


class Year(NamedTuple):
    """The champion's true skill night by night, and how often it changed, and for the worse."""

    skill: Floats
    better: int
    worse: int
    renewed: int


def simulated(rng: np.random.Generator, spread: float, nights: int = 365) -> Year:
    """Another challenger every night; noise of a week persists for the next six nights."""
    last_value = np.abs(rng.normal(size=WEEK))

    def noise(candles: int) -> Floats:
        return rng.normal(0.0, STDERR * np.sqrt(WEEK / 2) * np.sqrt(2 / np.pi), candles)

    champion = Model(rng.normal(0.0, spread), noise(WEEK), 0)
    skill = []
    changes = {"better": 0, "worse": 0, "renewed": 0}
    for night in range(nights):
        last_value = np.append(last_value[DAY:], np.abs(rng.normal(size=DAY)))
        champion = champion._replace(noise=np.append(champion.noise[DAY:], noise(DAY)))
        challenger = Model(rng.normal(0.0, spread), noise(WEEK), night)
        mine, theirs = (
            (1.0 - model.skill) * last_value - model.noise for model in (challenger, champion)
        )
        week = Losses(np.zeros(WEEK, int), HOUR_MS * np.arange(WEEK), last_value, mine, theirs)
        decision = decide(week, RULES, HOUR_MS, night - champion.born)
        if decision.promote:
            changes[decision.rule] += 1
            changes["worse"] += decision.rule == "better" and challenger.skill < champion.skill
            champion = challenger
        skill.append(champion.skill)
    return Year(np.array(skill), **changes)


def test_over_the_years_the_champion_improves_despite_some_wrong_promotions() -> None:
    rng = np.random.default_rng(20261123)
    years = [simulated(rng, SPREAD) for _ in range(8)]
    # A retrain is worth 0 on average; the mean of eight years scatters by a tenth of the spread.
    later = np.mean([year.skill[90:].mean() for year in years])
    assert later > 0.5 * SPREAD
    changes, worse = sum(year.better for year in years), sum(year.worse for year in years)
    assert 0 < worse < 0.4 * changes
    assert changes < 8 * 365 * 0.05
