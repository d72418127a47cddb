"""Test that rows added together are stored as one by one, by the plain way."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.core.candle import Candle, FinalBy, Ohlcv, Timeframe
from model.core.market import MarketKey
from model.forecasts.batch import Columns, Common, ForecastBatch
from model.forecasts.forecast import Forecast, Market, ModelInfo
from model.forecasts.rules import Rules
from model.history.rows import FittedScaler, Rows
from model.history.statements import INSERT_REVISION
from model.history.store import History

T0 = 1_776_859_560_000
MINUTE = 60_000
FRAME = Timeframe.parse("1m")
MARKET = MarketKey("binance", FRAME)
SYMBOLS: Final = ("A/U", "B/U", "C/U")
FORMING: Final = -1
"""A symbol's position in a batch that is refused."""

TABLES: Final = ("market", "symbol", "model", "rules", "candle", "scaler", "forecast")

Row = tuple[object, ...]
Arrival = tuple[int, int, float, int]
"""Slot, symbol, close, delay in ms."""


def candle(arrival: Arrival) -> Candle:
    slot, symbol, close, delay_ms = arrival
    open_ms = T0 + slot * MINUTE
    ohlcv = Ohlcv(2.0, 3.0, 0.5, close, 1.0)
    final_by: FinalBy | None = None if symbol == FORMING else "exchange_flag"
    received_ms = open_ms + MINUTE + delay_ms
    return Candle(SYMBOLS[symbol], open_ms, open_ms + MINUTE, ohlcv, received_ms, 5.0, final_by)


def stored(path: Path, table: str) -> list[Row]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - a constant


arrivals = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(FORMING, 2), st.sampled_from([1.0, 2.5]),
        st.integers(-1, 2),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(batches=st.lists(st.tuples(st.integers(0, 2), arrivals), max_size=6))
def test_candles_are_stored_as_if_each_was_compared_with_the_stored_ones(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[int, list[Arrival]]]
) -> None:
    """Several markets and writers, revisions, repetitions, and batches that are rolled back."""
    folder = tmp_path_factory.mktemp("equal")
    markets = MARKET, MarketKey.parse("kraken", "1m")
    # The service, and a job that completes the same history.
    with closing(History(folder / "own")) as own, closing(History(folder / "own")) as job:
        with closing(History(folder / "plain")) as plain:
            for history in own, plain:
                history.add(MARKET, Rows([candle((0, 0, 1.0, 0)), candle((0, 1, 1.0, 0))]))
                history.add(markets[1], Rows([candle((0, 2, 1.0, 0))]))
        for number, (writer, batch) in enumerate(batches):
            history, market = (job if writer == 2 else own), number % 2
            with suppress(ValueError):
                history.add(markets[market], Rows([candle(arrival) for arrival in batch]))
            if all(arrival[1] != FORMING for arrival in batch):
                add_plainly(folder / "plain", market + 1, batch)
    assert stored(folder / "own", "candle") == stored(folder / "plain", "candle")


def add_plainly(path: Path, market: int, batch: list[Arrival]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for slot, symbol, close, delay_ms in batch:
            values = 2.0, 3.0, 0.5, close, 1.0, 0, 0
            row = market, T0 // 1000 + 60 * slot, symbol + 1, delay_ms, *values
            database.execute(INSERT_REVISION, row)


def batch_of(count: int, *, known: bool, seed: int) -> ForecastBatch:
    """Forecasts of ``count`` symbols, by two models; every second is known if ``known`` is False.

    Shares lie between two billionths now and then.
    """
    rng = np.random.default_rng(seed)
    table = rng.uniform(0.0, 1.0, (len(Columns._fields), count))
    shares: Columns[NDArray[np.float64]] = Columns._make(table)
    shares.short[:] = np.round(shares.short * 2e9) / 2e9
    symbols = tuple(f"S{number}/U" for number in range(count))
    models = ModelInfo("v1", "a" * 64, "log_return"), ModelInfo("v2", "b" * 64, "log_return")
    ohlcv = Ohlcv(1.0, 1.0, 1.0, 1.0, 1.0)
    return ForecastBatch(
        market=Market("trader-1", "binance", symbols, FRAME),
        common=Common(60, Rules(multiple=0.5 + seed), 3.0, T0 + MINUTE + 40 + seed),
        candles=[Candle(s, T0, T0 + MINUTE, ohlcv, T0 + MINUTE, 1.0, "rest") for s in symbols],
        numbers=shares.table(),
        known=[known or number % 2 == 0 for number in range(count)],
        learnt=list(range(count)),
        models=[models[number % 3 == 1] for number in range(count)],
        filled=[0] * count,
        repaired=[0] * count,
        skills=[None] * count,
        late=[number % 5 == 0 for number in range(count)],
    )


def plain_row(forecast: Forecast, rules: int) -> Row:
    interval, chances = forecast.interval, forecast.probabilities
    return (
        1,
        forecast.candle_close_ms // 1000,
        int(forecast.symbol[1:-2]) + 1,
        forecast.published_ms - forecast.candle_close_ms,
        forecast.last_close,
        forecast.predicted_close,
        None if interval is None else interval.lower,
        None if interval is None else interval.upper,
        forecast.model.version,
        forecast.late,
        forecast.basis.learnt,
        rules,
        None if chances is None else chances.threshold,
        None if chances is None else round(chances.short * 1e9),
        None if chances is None else round(chances.long * 1e9),
        round(forecast.window.out_of_range * 1e9),
    )


@pytest.mark.parametrize("known", [True, False])
def test_a_batch_of_forecasts_is_stored_as_one_by_one(tmp_path: Path, *, known: bool) -> None:
    forecasts = batch_of(200, known=known, seed=1)
    with closing(History(tmp_path / "history")) as history:
        history.add(MARKET, Rows(forecasts=[forecasts]))
        # What was published first stays.
        history.add(MARKET, Rows(forecasts=[batch_of(200, known=known, seed=2)]))
    versions = {row[0]: row[1] for row in stored(tmp_path / "history", "model")}
    rows = [
        (*row[:8], versions[row[8]], *row[9:]) for row in stored(tmp_path / "history", "forecast")
    ]
    assert rows == [plain_row(forecast, rules=1) for forecast in forecasts]


def test_all_kinds_are_added_in_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "history"
    closed, forming = candle((0, 0, 1.0, 0)), candle((0, FORMING, 1.0, 0))
    scaler = FittedScaler(("v1", "a" * 64), "B/U", T0, b"1")
    rows = Rows([closed, forming], [scaler], [batch_of(3, known=True, seed=1)])
    assert rows.total == 6
    with closing(History(path)) as history:
        with pytest.raises(ValueError, match="forming candle"):
            history.add(MARKET, rows)
        assert {name: stored(path, name) for name in TABLES} == {name: [] for name in TABLES}
        # Ids that were given before the rollback are given to others.
        history.add(MARKET, Rows(scalers=[scaler]))
        history.add(MARKET, rows._replace(candles=[closed]))
        assert history.candles(MARKET, "A/U", 1) == [closed._replace(received_s=0.0)]
    counts = {name: len(stored(path, name)) for name in TABLES}
    assert counts == {
        "market": 1, "symbol": 5, "model": 2, "rules": 1, "candle": 1, "scaler": 1, "forecast": 3,
    }  # fmt: skip


def test_joined_rows_keep_their_order() -> None:
    one, two, three = (candle((slot, 0, 1.0, 0)) for slot in range(3))
    forecasts = batch_of(2, known=True, seed=1)
    parts = [Rows([one]), Rows(forecasts=[forecasts]), Rows([two, three])]
    assert Rows.joined(parts) == Rows([one, two, three], [], [forecasts])
    assert Rows.joined([]).total == 0
