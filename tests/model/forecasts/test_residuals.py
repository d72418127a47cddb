from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.core.errors import BundleError
from model.forecasts.residuals import (
    DEFAULT_WEIGHTS,
    LEVELS,
    MIN_RESIDUALS,
    Residuals,
    SymbolResiduals,
    conformal_quantiles,
    fit_residuals,
)
from model.forecasts.volatility import SEASON_MS, WARMUP
from model.stats.scores import Scored

MINUTE_MS = 60_000
T0 = 1_776_859_200_000
SOME = Residuals(
    (0.1, 0.5, 0.0, 0.3),
    (0.25, -0.25),
    {"A/U": SymbolResiduals(500, tuple((LEVELS - 0.5).tolist()))},
)


def test_the_file_gives_back_what_was_written() -> None:
    assert Residuals.from_json(SOME.to_json()) == SOME
    assert Residuals.from_json(Residuals().to_json()) == Residuals()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), 2, "schema must be 1, not 2"),
        (("more",), 1, "unknown keys ['more']"),
        (("levels",), [0.1, 0.9], "levels are not the ones"),
        (("weights",), [1, 2], "weights must be 4 numbers"),
        (("weights",), [1, 2, 3, 11], "weights must be 4 numbers of at most 10"),
        (("weights",), [1, 2, 3, "4"], "must be a finite number, not '4'"),
        (("season",), [], "season must be 1 to 60 numbers"),
        (("season",), [3.5], "season must be 1 to 60 numbers of at most 3"),
        (("symbols",), [], "symbols: must be an object"),
        (("symbols", "A/U"), {"n": 500}, "lacks keys ['quantiles']"),
        (("symbols", "A/U", "n"), 0, "must hold n >= 1"),
        (("symbols", "A/U", "n"), True, "must be an integer"),
        (("symbols", "A/U", "quantiles"), [0.0], "ascending quantiles"),
        (("symbols", "A/U", "quantiles"), [-i for i in range(len(LEVELS))], "ascending"),
        (("symbols", "A/U", "quantiles"), [1e999] * len(LEVELS), "calibration.json"),
    ],
)
def test_anything_else_is_refused_in_one_line(
    path: tuple[str, ...], value: Any, message: str
) -> None:
    document = json.loads(SOME.to_json())
    *parents, last = path
    place = document
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(BundleError, match=re.escape(message)) as refused:
        Residuals.from_json(json.dumps(document))
    assert "\n" not in str(refused.value)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_quantiles_are_residuals_in_order(values: list[float]) -> None:
    quantiles = conformal_quantiles(np.array(values))
    assert np.all(np.diff(quantiles) >= 0.0)
    assert set(quantiles.tolist()) <= set(values)


@pytest.mark.parametrize(("n", "p", "rank"), [(199, 0.05, 10), (199, 0.95, 190), (99, 0.07, 7)])
def test_quantiles_are_rounded_outwards(n: int, p: float, rank: int) -> None:
    quantiles = conformal_quantiles(np.arange(1.0, n + 1))
    assert quantiles[np.argmin(np.abs(LEVELS - p))] == rank


def market(rows: int, seed: int) -> tuple[Any, Any]:
    """Minutes that move three times as far in the first quarter of each hour."""
    rng = np.random.default_rng(seed)
    open_ms = T0 + MINUTE_MS * np.arange(rows, dtype=np.int64)
    size = np.where(open_ms % SEASON_MS < SEASON_MS // 4, 3e-3, 1e-3)
    move = rng.normal(0.0, 1.0, rows) * size
    close = 100.0 * np.exp(np.cumsum(move))
    opened = np.concatenate([[100.0], close[:-1]])
    spread = np.exp(np.abs(rng.normal(0.0, 0.3, rows)) * size)
    high, low = np.maximum(opened, close) * spread, np.minimum(opened, close) / spread
    return open_ms, np.column_stack([opened, high, low, close, rng.uniform(1, 9, rows)])


def forecasts(candles: dict[str, tuple[Any, Any]], rows: range) -> Scored:
    at = np.arange(rows.start, rows.stop)
    parts = []
    for number, (open_ms, ohlcv) in enumerate(candles.values()):
        last, close = ohlcv[at - 1, 3], ohlcv[at, 3]
        parts.append((np.full(len(at), number), open_ms[at], last, close, last))
    return Scored._make(np.concatenate(column) for column in zip(*parts, strict=True))


def test_the_scale_is_learnt_before_the_validation_part_and_the_season_found() -> None:
    candles = {"A/U": market(6000, 1), "B/U": market(6000, 2)}
    validation = forecasts(candles, range(5000, 6000))
    found = fit_residuals(candles.items(), ("A/U", "B/U"), validation)
    assert len(found.season) == 60
    assert found.season[0] > 0.2
    assert found.season[15] < -0.2
    assert {name: entry.n for name, entry in found.by_symbol.items()} == {"A/U": 1000, "B/U": 1000}
    assert Residuals.from_json(found.to_json()) == found
    # What comes after the validation part began changes nothing about the scale.
    for _, ohlcv in candles.values():
        ohlcv[5001:, 1] *= 1.5
    later = fit_residuals(candles.items(), ("A/U", "B/U"), validation)
    assert (later.weights, later.season) == (found.weights, found.season)
    assert later.by_symbol != found.by_symbol


def test_too_few_residuals_are_no_evidence_and_unchanged_candles_are_ignored() -> None:
    candles = {"A/U": market(WARMUP + 300, 1)}
    few = forecasts(candles, range(WARMUP + 301 - MIN_RESIDUALS, WARMUP + 300))
    assert fit_residuals(candles.items(), ("A/U",), few).by_symbol == {}
    open_ms, ohlcv = market(2000, 1)
    ohlcv[:] = [5.0, 5.0, 5.0, 5.0, 0.0]
    still = {"A/U": (open_ms, ohlcv)}
    found = fit_residuals(still.items(), ("A/U",), forecasts(still, range(1500, 2000)))
    assert found.weights == DEFAULT_WEIGHTS
    assert set(found.by_symbol["A/U"].quantiles) == {0.0}
