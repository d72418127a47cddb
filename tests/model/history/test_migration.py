"""Test that a history of an earlier schema keeps its rows and can be used."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from model.core.candle import Candle, Ohlcv
from model.core.market import MarketKey
from model.history.database import APPLICATION_ID, SCHEMA
from model.history.reader import HistoryReader
from model.history.store import History

MARKET = MarketKey.parse("binance", "1m")
SHA = "a" * 64
T0 = 1_776_859_560_000

SCHEMA_1 = (
    """CREATE TABLE market (
        id INTEGER PRIMARY KEY, exchange TEXT NOT NULL, timeframe TEXT NOT NULL,
        UNIQUE (exchange, timeframe))""",
    "CREATE TABLE symbol (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE model (
        id INTEGER PRIMARY KEY, version TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE)""",
    """CREATE TABLE candle (
        market INTEGER NOT NULL, open_s INTEGER NOT NULL, symbol INTEGER NOT NULL,
        delay_ms INTEGER NOT NULL, -- received after the close; each revision has its own
        open REAL NOT NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL,
        volume REAL NOT NULL, final_by INTEGER NOT NULL, filled INTEGER NOT NULL,
        PRIMARY KEY (market, open_s, symbol, delay_ms)) WITHOUT ROWID""",
    """CREATE TABLE forecast (
        market INTEGER NOT NULL, close_s INTEGER NOT NULL, symbol INTEGER NOT NULL,
        delay_ms INTEGER NOT NULL, -- published after the close
        last_close REAL NOT NULL, predicted_close REAL NOT NULL, lower REAL, upper REAL,
        model INTEGER NOT NULL, late INTEGER NOT NULL,
        PRIMARY KEY (market, close_s, symbol)) WITHOUT ROWID""",
)
CALIBRATION_2 = """CREATE TABLE calibration (
    market INTEGER NOT NULL, model INTEGER NOT NULL, symbol INTEGER NOT NULL,
    saved_s INTEGER NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (market, model, symbol)) WITHOUT ROWID"""
ROWS = {
    "market": (1, "binance", "1m"),
    "symbol": (1, "A/U"),
    "model": (1, "v1", SHA),
    "candle": (1, T0 // 1000, 1, 12, 1, 2, 1, 2, 3, 0, 0),
    "forecast": (1, T0 // 1000 + 60, 1, 15, 2, 2.5, 2.25, 2.75, 1, 0),
}


def written_by(schema: int, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        rows: dict[str, tuple[object, ...]] = {**ROWS}
        for table in SCHEMA_1:
            database.execute(table)
        if schema > 1:
            database.execute(CALIBRATION_2)
            rows["calibration"] = (1, 1, 1, T0 // 1000, b"\x01\x02")
        for name, row in rows.items():
            places = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO {name} VALUES ({places})", row)  # noqa: S608 - see above
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {schema}")
        database.execute("PRAGMA journal_mode = WAL")


def layout(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        tables = database.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall()
        return {
            name: database.execute(f"PRAGMA table_info('{name}')").fetchall() for (name,) in tables
        }


@pytest.mark.parametrize("schema", [1, 2])
def test_an_older_history_keeps_its_rows_and_is_usable(tmp_path: Path, schema: int) -> None:
    path, fresh = tmp_path / "old.sqlite", tmp_path / "fresh.sqlite"
    written_by(schema, path)
    with closing(History(path)) as history, closing(History(fresh)):
        candle = Candle(
            "A/U", T0, T0 + 60_000, Ohlcv(1, 2, 1, 2, 3), T0 + 60_012, 0.0, "exchange_flag"
        )
        assert history.candles(MARKET, "A/U", 9) == [candle]
        (outcome,) = history.outcomes(MARKET, 9)
        assert outcome.forecast[3:] == (2.0, 2.5, 2.25, 2.75)
        assert history.calibration(MARKET, SHA) == ({"A/U": b"\x01\x02"} if schema > 1 else {})
        history.save_calibration(MARKET, ("v1", SHA), (T0 + 86_400_000, {"A/U": b"3"}))
    with closing(HistoryReader(path, MARKET)) as archive:
        (group,) = archive.forecast_groups(T0, T0 + 120_000)
        (published,) = archive.published(group, group.first_ms)
        days = [b"\x01\x02", b"3"] if schema > 1 else [b"3"]
        assert [state for _, state in archive.states(group)] == days
    assert (published.last_close, published.lower, published.learnt) == (2.0, 2.25, None)
    assert (published.rules, published.out_of_range) == (None, None)
    assert layout(path) == layout(fresh)
