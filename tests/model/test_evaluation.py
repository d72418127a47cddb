from __future__ import annotations

import numpy as np
import pytest

from model.evaluation import Scored, evaluate, scaled_metrics


def walk(n: int, symbols: int = 1, common: float = 0.0, seed: int = 0) -> Scored:
    """Random walks whose forecasts are the last value with a little noise."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 1e-3, (n, 1))
    own = rng.normal(0, 1e-3, (n, symbols))
    returns = common * shared + (1 - common) * own
    noise = 2e-4 * (common * rng.normal(size=(n, 1)) + (1 - common) * rng.normal(size=(n, symbols)))
    last = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-3, (n, symbols)), axis=0))
    times = np.repeat(np.arange(n)[:, None] * 60_000, symbols, axis=1)
    numbers = np.repeat(np.arange(symbols)[None], n, axis=0)
    close, predicted = last * np.exp(returns), last * np.exp(noise)
    return Scored(numbers.ravel(), times.ravel(), last.ravel(), close.ravel(), predicted.ravel())


def test_the_last_value_has_the_ratio_one() -> None:
    scored = walk(500)
    result = evaluate(scored._replace(predicted=scored.last_close))
    assert result.mae_ratio == result.low == result.high == 1.0
    assert np.isnan(result.direction)


def test_errors_are_in_price_and_per_cent() -> None:
    scored = Scored(
        symbol=np.zeros(3, dtype=np.int64),
        open_ms=np.arange(3),
        last_close=np.array([100.0, 200.0, 50.0]),
        close=np.array([101.0, 198.0, 50.0]),
        predicted=np.array([100.5, 201.0, 51.0]),
    )
    result = evaluate(scored)
    assert result.n == 3
    assert result.mae == pytest.approx((0.5 + 3.0 + 1.0) / 3)
    assert result.mae_percent == pytest.approx((0.5 + 1.5 + 2.0) / 3)
    assert result.mae_ratio == pytest.approx((0.5 + 1.5 + 2.0) / (1.0 + 1.0))
    # The third candle did not move: one of two moves was called right.
    assert result.direction == 0.5


def test_a_market_that_never_moves_has_no_ratio() -> None:
    scored = walk(50)
    result = evaluate(scored._replace(close=scored.last_close))
    assert np.isnan([result.mae_ratio, result.low, result.high]).all()


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth = evaluate(walk(200_000, seed=99)).mae_ratio
    intervals = [evaluate(walk(400, seed=seed)) for seed in range(100)]
    held = sum(r.low <= truth <= r.high for r in intervals)
    assert 85 <= held <= 100
    assert all(r.low <= r.mae_ratio <= r.high for r in intervals)


def test_symbols_that_move_together_do_not_narrow_the_interval() -> None:
    alone = evaluate(walk(1000))
    together = evaluate(walk(1000, symbols=8, common=1.0))
    apart = evaluate(walk(1000, symbols=8, common=0.0))
    widths = [r.high - r.low for r in (alone, together, apart)]
    assert widths[1] > 0.7 * widths[0]
    assert widths[2] < 0.6 * widths[0]


def test_one_symbol_can_be_looked_at_alone() -> None:
    scored = walk(10, symbols=3)
    one = scored.of(1)
    assert set(one.symbol.tolist()) == {1}
    assert len(one.close) == 10


def test_one_sample_has_no_direction() -> None:
    assert np.isnan(scaled_metrics(np.ones(1), np.ones(1))["direction_accuracy"])
