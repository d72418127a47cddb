"""Every forecast is scored once, by its own candle, and the figures equal numpy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.scoring.accuracy import MAX_ERROR, MAX_WAIT_CANDLES, Accuracy, Scores, Summary
from daemon.scoring.rolling import NO, UNKNOWN, YES, ratio_of_sums
from model.core.candle import Candle, FinalBy, Ohlcv
from model.core.market import MarketKey
from model.forecasts.forecast import (
    Forecast,
    ForecastRow,
    Interval,
)
from model.history.rows import Rows
from model.history.store import History, Outcome
from tests.support.sample_forecasts import batch_of, forecast_at

T0 = 1_776_859_560_000
MINUTE = 60_000
CODES = {True: YES, False: NO, None: UNKNOWN}


def forecast(
    slot: int,
    predicted: float = 101.0,
    symbol: str = "BTC/USDT",
    interval: tuple[float, float] | None = (98.0, 102.0),
) -> Forecast:
    """The forecast of candle ``slot + 1``, made when candle ``slot`` closed at 100."""
    return forecast_at(
        T0 + (slot + 1) * MINUTE,
        symbol,
        predicted_close=predicted,
        predicted_return=predicted / 100.0 - 1.0,
        interval=None if interval is None else Interval(0.9, *interval),
    )


def candle(
    slot: int,
    close: float = 100.0,
    symbol: str = "BTC/USDT",
    final_by: FinalBy | None = "exchange_flag",
) -> Candle:
    open_ms = T0 + slot * MINUTE
    close_ms = open_ms + MINUTE
    return Candle(
        symbol,
        open_ms,
        close_ms,
        Ohlcv(100.0, 200.0, 50.0, close, 1.0),
        close_ms + 9,
        1.0,
        final_by,
    )


def scored(accuracy: Accuracy, slot: int, predicted: float, close: float) -> Scores:
    assert accuracy.on_published(batch_of(forecast(slot, predicted)))
    scores = accuracy.on_candles_closed([candle(slot + 1, close)])
    assert scores is not None
    assert len(scores.forecasts) == 1
    return scores


def test_a_forecast_is_scored_by_the_next_candle_and_once() -> None:
    accuracy = Accuracy()
    assert accuracy.on_published(batch_of(forecast(0, 101.0)))
    assert accuracy.on_candles_closed([candle(0)]) is None  # the candle it was made from
    assert accuracy.on_candles_closed([candle(1, 104.0, final_by=None)]) is None  # still forming
    assert accuracy.on_candles_closed([candle(1, 104.0, symbol="ETH/USDT")]) is None
    scores = accuracy.on_candles_closed([candle(1, 104.0)])
    assert scores is not None
    assert [list(column) for column in scores] == [
        [ForecastRow.of(forecast(0))],
        [104.0],
        [0.03],
        [0.04],
        [YES],
        [NO],
    ]
    assert accuracy.on_candles_closed([candle(1, 105.0)]) is None  # a revision scores nothing
    assert (accuracy.pending, accuracy.unscored) == (0, 0)


def test_a_published_forecast_is_never_revised() -> None:
    accuracy = Accuracy()
    assert accuracy.on_published(batch_of(forecast(0, 101.0)))
    assert not accuracy.on_published(batch_of(forecast(0, 999.0)))
    scores = accuracy.on_candles_closed([candle(1)])
    assert scores is not None
    assert scores.forecasts[0].predicted_close == 101.0
    assert not accuracy.on_published(batch_of(forecast(0, 100.0)))  # after the fact
    assert accuracy.on_published(batch_of(forecast(1)))


@pytest.mark.parametrize(
    ("predicted", "close", "hit"),
    [
        (101.0, 100.5, True),
        (99.0, 99.9, True),
        (101.0, 99.9, False),
        (99.0, 100.1, False),
        (100.0, 101.0, None),
        (101.0, 100.0, None),
    ],
)
def test_ties_are_neither_hits_nor_misses(
    predicted: float, close: float, *, hit: bool | None
) -> None:
    assert scored(Accuracy(), 0, predicted, close).hits.tolist() == [CODES[hit]]


def test_an_absurd_close_does_not_hide_later_errors() -> None:
    accuracy = Accuracy(window=4, min_n=2)
    assert np.array(scored(accuracy, 0, 101.0, 1e15)[2:4]).tolist() == [[MAX_ERROR], [MAX_ERROR]]
    for slot in range(1, 5):
        scored(accuracy, slot, 101.0, 102.0)
    # It has left the window, and nothing of it is left in the sums.
    skill = accuracy.skills.get("BTC/USDT")
    assert skill is not None
    assert skill.mae_ratio == pytest.approx(0.5)
    assert skill.stderr == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("close", "inside"), [(98.0, True), (102.0, True), (97.99, False), (102.01, False)]
)
def test_the_bounds_belong_to_the_interval(close: float, *, inside: bool) -> None:
    assert scored(Accuracy(), 0, 101.0, close).insides.tolist() == [CODES[inside]]


def test_without_interval_there_is_no_coverage() -> None:
    accuracy = Accuracy(min_n=1)
    accuracy.on_published(batch_of(forecast(0, interval=None)))
    scores = accuracy.on_candles_closed([candle(1)])
    assert scores is not None
    assert scores.insides.tolist() == [UNKNOWN]
    assert accuracy.summary("BTC/USDT").interval_coverage is None
    assert accuracy.aggregate().interval_coverage is None


def test_a_forecast_whose_candle_never_arrives_is_dropped_and_counted() -> None:
    accuracy = Accuracy()
    accuracy.on_published(batch_of(forecast(0)))
    for slot in range(2, MAX_WAIT_CANDLES + 1):
        accuracy.on_candles_closed([candle(slot)])
    assert (accuracy.pending, accuracy.unscored) == (1, 0)
    accuracy.on_candles_closed([candle(MAX_WAIT_CANDLES + 1)])
    assert (accuracy.pending, accuracy.unscored) == (0, 1)
    assert accuracy.on_candles_closed([candle(1)]) is None


def test_forecasts_without_any_candle_stay_bounded() -> None:
    accuracy = Accuracy()
    for slot in range(1000):
        accuracy.on_published(batch_of(forecast(slot)))
    assert (accuracy.pending, accuracy.unscored) == (MAX_WAIT_CANDLES, 1000 - MAX_WAIT_CANDLES)


def test_a_late_candle_still_scores_its_own_forecast() -> None:
    accuracy = Accuracy()
    accuracy.on_published(batch_of(forecast(0, 101.0)))
    accuracy.on_published(batch_of(forecast(1, 102.0)))
    second = accuracy.on_candles_closed([candle(2, 103.0)])
    first = accuracy.on_candles_closed([candle(1, 99.0)])
    assert first is not None
    assert second is not None
    assert [first.forecasts[0].predicted_close, second.forecasts[0].predicted_close] == [
        101.0,
        102.0,
    ]


def test_figures_are_withheld_until_there_is_enough_evidence() -> None:
    accuracy = Accuracy(window=50, min_n=10)
    nothing = Summary(None, None, None)
    assert accuracy.skills.get("BTC/USDT") is None
    for slot in range(10):
        assert (accuracy.summary("BTC/USDT"), accuracy.aggregate()) == (nothing, nothing)
        scored(accuracy, slot, 101.0, 102.0)
    skill = accuracy.skills.get("BTC/USDT")
    assert skill == pytest.approx((0.5, 0.0, 10), abs=1e-7)
    assert accuracy.summary("BTC/USDT") == (skill, 1.0, 1.0)
    together = accuracy.aggregate()
    assert together.skill == pytest.approx((0.5, 0.0, 10), abs=1e-7)
    assert together[1:] == (1.0, 1.0)


def test_a_price_that_never_moves_has_no_ratio() -> None:
    accuracy = Accuracy(min_n=2)
    for slot in range(5):
        scored(accuracy, slot, 101.0, 100.0)
    assert accuracy.skills.get("BTC/USDT") is None
    assert accuracy.aggregate().skill is None


def test_a_restart_resumes_where_the_process_was_killed(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    before, history = Accuracy(window=40, min_n=5), History(tmp_path / "history.db")
    symbols = ("BTC/USDT", "ETH/USDT")
    for slot in range(60):
        candles = [candle(slot, 100.0 + rng.normal(), symbol) for symbol in symbols]
        for closed in candles:
            before.on_candles_closed([closed])
        scored_rows = [
            forecast(slot, 100.0 + rng.normal(), symbol, interval=(99.0, 101.0))
            for symbol in symbols
        ]
        for one in scored_rows:
            before.on_published(batch_of(one))
        history.add_candles(MarketKey.parse("binance", "1m"), candles)
        batches = [batch_of(one) for one in scored_rows]
        history.add(MarketKey.parse("binance", "1m"), Rows(forecasts=batches))
    after = Accuracy(window=40, min_n=5)
    # One more: the forecasts of the newest candle are still waiting.
    after.restore(history.outcomes(MarketKey.parse("binance", "1m"), 41))
    history.close()
    assert after.pending == before.pending == 2
    for symbol in symbols:
        old, new = before.summary(symbol), after.summary(symbol)
        assert new.skill == pytest.approx(old.skill, rel=1e-9)
        assert new[1:] == old[1:]
    assert after.aggregate().skill == pytest.approx(before.aggregate().skill, rel=1e-9)
    assert not after.on_published(batch_of(forecast(59, 7.0)))
    for accuracy in (before, after):
        assert accuracy.on_candles_closed([candle(60)]) is not None


def test_restoring_twice_changes_nothing() -> None:
    rows = [Outcome(ForecastRow.of(forecast(slot)), 100.5) for slot in range(20)]
    accuracy = Accuracy(min_n=2)
    accuracy.restore(rows)
    once = accuracy.summary("BTC/USDT")
    accuracy.restore(rows)
    assert accuracy.summary("BTC/USDT") == once


class PlainFigures:
    """One symbol's figures, from all its errors and answers: what the columns are held to."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._scored: list[tuple[float, float, bool | None, bool | None]] = []

    def add(self, made: Forecast, close: float) -> None:
        last, expected, moved = made.last_close, made.predicted_close - 100.0, close - 100.0
        errors = (abs(made.predicted_close - close) / last, abs(moved) / last)
        hit = None if not expected or not moved else (expected > 0.0) == (moved > 0.0)
        bounds = made.interval
        inside = None if bounds is None else bounds.lower <= close <= bounds.upper
        self._scored = [*self._scored, (*errors, hit, inside)][-self._window :]

    def summary(self, min_n: int) -> Summary:
        x, y = np.array([entry[:2] for entry in self._scored], np.float32).astype(float).T
        skill = None
        if len(x) >= min_n and y.sum() > 0.0:
            skill = ratio_of_sums(len(x), x.sum(), y.sum(), x @ x, x @ y, y @ y)
        shares = []
        for at in (2, 3):
            known = [entry[at] for entry in self._scored if entry[at] is not None]
            shares.append(sum(map(bool, known)) / len(known) if len(known) >= min_n else None)
        return Summary(skill, *shares)


PRICES = st.sampled_from([99.0, 99.5, 100.0, 100.25, 101.0, 104.0])
INTERVALS = st.sampled_from([None, (99.0, 101.0), (99.75, 100.25)])


@settings(deadline=None)
@given(
    candles=st.lists(
        st.dictionaries(
            st.sampled_from(["A/U", "B/U", "C/U", "D/U"]),
            st.tuples(PRICES, PRICES, INTERVALS),
        ),
        min_size=1,
        max_size=25,
    ),
    window=st.integers(2, 7),
)
def test_symbols_scored_together_get_the_figures_of_each_by_itself(
    candles: list[dict[str, tuple[float, float, tuple[float, float] | None]]], window: int
) -> None:
    accuracy, plain = Accuracy(window, min_n=2), dict[str, PlainFigures]()
    for slot, of_symbols in enumerate(candles):
        for symbol, (predicted, close, interval) in of_symbols.items():
            made = forecast(slot, predicted, symbol, interval)
            accuracy.on_published(batch_of(made))
            plain.setdefault(symbol, PlainFigures(window)).add(made, close)
        closed = [candle(slot + 1, close, symbol) for symbol, (_, close, _) in of_symbols.items()]
        scores = accuracy.on_candles_closed(closed)
        names = [] if scores is None else [row.symbol for row in scores.forecasts]
        assert names == [*of_symbols]
    for symbol, figures in plain.items():
        expected, got = figures.summary(2), accuracy.summary(symbol)
        assert got[1:] == pytest.approx(expected[1:])
        if expected.skill is None:
            assert got.skill is None
        else:
            assert got.skill == pytest.approx(expected.skill, rel=1e-6, abs=1e-7)
