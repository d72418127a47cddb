from __future__ import annotations

import numpy as np
import pytest

from model.stats.bootstrap import Estimate
from model.stats.scores import Scored, evaluate, scaled_metrics


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
    assert result.mae_ratio == (1.0, 1.0, 1.0)
    assert result.mae.value == result.last_value_mae
    assert result.mae_percent.value == result.last_value_percent
    assert result.moves == 0
    assert np.isnan(result.direction).all()


def test_errors_are_in_price_and_per_cent() -> None:
    scored = Scored(
        symbol=np.zeros(3, dtype=np.int64),
        open_ms=np.arange(3),
        last_close=np.array([100.0, 200.0, 50.0]),
        close=np.array([101.0, 198.0, 50.0]),
        predicted=np.array([100.5, 201.0, 51.0]),
    )
    result = evaluate(scored)
    assert (result.n, result.candles, result.moves) == (3, 3, 2)
    assert result.mae.value == pytest.approx((0.5 + 3.0 + 1.0) / 3)
    assert result.mae_percent.value == pytest.approx((0.5 + 1.5 + 2.0) / 3)
    assert result.last_value_mae == pytest.approx((1.0 + 2.0) / 3)
    assert result.last_value_percent == pytest.approx((1.0 + 1.0) / 3)
    assert result.mae_ratio.value == pytest.approx((0.5 + 1.5 + 2.0) / (1.0 + 1.0))
    # The third candle did not move: one of two moves was called right.
    assert result.direction.value == 0.5


def test_a_candle_counts_once_for_any_number_of_symbols() -> None:
    alone = walk(300)
    twice = Scored._make(np.concatenate([array[:100], array]) for array in alone)
    doubled = twice._replace(symbol=np.repeat([1, 0], [100, 300]))
    assert (evaluate(doubled).n, evaluate(doubled).candles) == (400, 300)
    for one, other in zip(evaluate(alone)[3:], evaluate(doubled)[3:], strict=True):
        assert one == pytest.approx(other)


def test_a_market_that_never_moves_has_no_ratio() -> None:
    scored = walk(50)
    result = evaluate(scored._replace(close=scored.last_close))
    assert np.isnan(result.mae_ratio).all()
    assert np.isnan(result.direction).all()


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def test_symbols_that_move_together_do_not_narrow_the_interval() -> None:
    alone = evaluate(walk(1000))
    together = evaluate(walk(1000, symbols=8, common=1.0))
    apart = evaluate(walk(1000, symbols=8, common=0.0))
    for name in ("mae_percent", "mae_ratio", "direction"):
        widths = [width(getattr(result, name)) for result in (alone, together, apart)]
        assert widths[1] > 0.7 * widths[0]
        assert widths[2] < 0.6 * widths[0]


def test_pooling_forecasts_as_independent_underestimates_the_error() -> None:
    """The ratio's real scatter over many markets, against both standard errors."""
    markets = [walk(300, symbols=8, common=0.8, seed=seed) for seed in range(60)]
    results = [evaluate(market) for market in markets]
    scatter = float(np.std([r.mae_ratio.value for r in results]))
    ours = float(np.mean([width(r.mae_ratio) for r in results])) / (2 * 1.96)
    assert 0.75 * scatter < ours < 1.3 * scatter
    assert float(np.mean([naive_stderr(market) for market in markets])) < 0.5 * scatter


def naive_stderr(scored: Scored) -> float:
    """Of the ratio, as if every forecast were independent."""
    model = np.abs(scored.predicted - scored.close) / scored.last_close
    last_value = np.abs(scored.last_close - scored.close) / scored.last_close
    excess = model - model.sum() / last_value.sum() * last_value
    return float(excess.std() / np.sqrt(len(model)) / last_value.mean())


def test_one_symbol_can_be_looked_at_alone() -> None:
    scored = walk(10, symbols=3)
    one = scored.of(1)
    assert set(one.symbol.tolist()) == {1}
    assert len(one.close) == 10


def test_one_sample_has_no_direction() -> None:
    assert np.isnan(scaled_metrics(np.ones(1), np.ones(1))["direction_accuracy"])
