"""What calibration has learnt, in the history: kept by market and model, pruned, migrated to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from model.candle import Candle, Ohlcv
from model.history import History

MARKET = ("binance", "1m")
OLD, NEW = ("v1", "a" * 64), ("v2", "b" * 64)
T0 = 1_776_859_560_000
DAY_MS = 86_400_000


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with closing(History(tmp_path / "history.sqlite")) as opened:
        yield opened


def test_each_market_and_model_has_its_own_and_the_newest_stays(history: History) -> None:
    assert history.calibration(MARKET, OLD[1]) == {}
    history.save_calibration(MARKET, OLD, (T0, {"A/U": b"1", "B/U": b"2"}))
    history.save_calibration(MARKET, NEW, (T0, {"A/U": b"3"}))
    history.save_calibration(("kraken", "1m"), OLD, (T0, {"A/U": b"4"}))
    history.save_calibration(MARKET, OLD, (T0 + 1000, {"A/U": b"\x00\xff"}))
    assert history.calibration(MARKET, OLD[1]) == {"A/U": b"\x00\xff", "B/U": b"2"}
    assert history.calibration(MARKET, NEW[1]) == {"A/U": b"3"}
    assert history.calibration(("kraken", "1m"), OLD[1]) == {"A/U": b"4"}
    assert history.calibration(("kraken", "5m"), OLD[1]) == {}


def test_what_has_not_been_saved_for_long_is_pruned(history: History) -> None:
    history.save_calibration(MARKET, OLD, (T0, {"A/U": b"1"}))
    history.save_calibration(MARKET, NEW, (T0 + 2 * DAY_MS, {"A/U": b"2"}))
    assert history.prune(1.0, T0 + 2 * DAY_MS) == 1
    assert history.calibration(MARKET, OLD[1]) == {}
    assert history.calibration(MARKET, NEW[1]) == {"A/U": b"2"}


def test_a_history_without_the_table_gets_it_and_keeps_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    candle = Candle("A/U", T0, T0 + 60_000, Ohlcv(1, 2, 1, 2, 3), T0, 0.0, "rest")
    with closing(History(path)) as first:
        first.add_candles(*MARKET, [candle])
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE calibration")
        database.execute("PRAGMA user_version = 1")
    with closing(History(path)) as second:
        second.save_calibration(MARKET, OLD, (T0, {"A/U": b"1"}))
        assert len(second.candles("binance", "A/U", "1m", 5)) == 1
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
    with closing(History(path)) as third:
        assert third.calibration(MARKET, OLD[1]) == {"A/U": b"1"}
