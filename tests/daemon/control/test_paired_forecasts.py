"""Check that forecasts of challenger and champion are paired, scored or ignored."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.control.paired_forecasts import PairedForecasts
from daemon.control.standby import AppliedCandles
from daemon.scoring.accuracy import score
from model.forecasts.forecast import ForecastRow
from tests.support.pipeline_harness import MINUTE, T0


def row(open_ms: int, last: float, predicted: float) -> ForecastRow:
    return ForecastRow("A/U", open_ms, open_ms + MINUTE.ms, last, predicted, None, None)


def applied(end_ms: int, *closes: float) -> AppliedCandles:
    ohlcv = np.ones((1, len(closes), 5))
    ohlcv[0, :, 3] = closes
    return AppliedCandles(np.array([0]), np.array([end_ms]), ohlcv)


def test_a_pair_is_scored_by_its_own_candle_as_accuracy_scores() -> None:
    champion: dict[int, ForecastRow] = {T0: row(T0, 100.0, 101.0)}
    pairs = PairedForecasts(["A/U"], [5], MINUTE.ms, lambda _, open_ms: champion.get(open_ms))
    pairs.add_challenger(0, T0, 100.0, 99.0, T0 + 40)
    # Three candles closed before they were applied: the first one decides.
    pairs.on_candles(applied(T0 + 3 * MINUTE.ms, 102.0, 90.0, 80.0))
    (record,) = pairs.take_records().tolist()
    [expected] = zip(*score([champion[T0]], [102.0])[2:4], strict=True)
    assert record == pytest.approx((5, T0, expected[1], 0.03, expected[0]))
    assert len(pairs.take_records()) == 0
    pairs.on_candles(applied(T0 + 4 * MINUTE.ms, 1.0))
    assert len(pairs.take_records()) == 0


@pytest.mark.parametrize(
    ("last", "challenger", "now_ms", "with_champion"),
    [
        (100.0, 99.0, T0 + MINUTE.ms, True),
        (100.1, 99.0, T0, True),
        (100.0, float("nan"), T0, True),
        (100.0, -1.0, T0, True),
        (100.0, 99.0, T0, False),
    ],
)
def test_forecasts_that_cannot_be_compared_are_ignored(
    last: float, challenger: float, now_ms: int, *, with_champion: bool
) -> None:
    known = row(T0, 100.0, 101.0) if with_champion else None
    pairs = PairedForecasts(["A/U"], [0], MINUTE.ms, lambda *_: known)
    pairs.add_challenger(0, T0, last, challenger, now_ms)
    pairs.on_candles(applied(T0 + MINUTE.ms, 102.0))
    assert len(pairs.take_records()) == 0
