"""Open the SQLite file of the history: create, migrate and check it, and run transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model.core.errors import HistoryError

APPLICATION_ID: Final = 0x63636173
"""``ccas`` in the header says whose database it is."""

SCHEMA: Final = 3

_MAGIC: Final = b"SQLite format 3\0"
_APPLICATION_ID_AT: Final = slice(68, 72)
_WHOLE_CHECK_BYTES: Final = 64 * 2**20
"""Files up to this size are checked page by page on opening, larger ones at their ends only."""

_WAL_BYTES: Final = 16 * 2**20
_BUSY_S: Final = 5.0

_LEARNT: Final = (
    """CREATE TABLE calibration (
        market INTEGER NOT NULL, model INTEGER NOT NULL, symbol INTEGER NOT NULL,
        day INTEGER NOT NULL, -- of saved_s; each has the last state of its own
        saved_s INTEGER NOT NULL, state BLOB NOT NULL,
        PRIMARY KEY (market, model, symbol, day)) WITHOUT ROWID""",
    "CREATE INDEX calibration_day ON calibration (day)",
    """CREATE TABLE scaler (
        market INTEGER NOT NULL, model INTEGER NOT NULL, symbol INTEGER NOT NULL,
        fitted_ms INTEGER NOT NULL, state BLOB NOT NULL,
        PRIMARY KEY (market, model, symbol, fitted_ms)) WITHOUT ROWID""",
    """CREATE TABLE rules (
        id INTEGER PRIMARY KEY, level REAL NOT NULL, gamma REAL NOT NULL, min_n INTEGER NOT NULL,
        threshold REAL, multiple REAL NOT NULL)""",
)
_BASIS: Final = (
    "learnt INTEGER",
    "rules INTEGER",
    "threshold REAL",
    # Parts per billion: an integer of four bytes at most, of none where it is 0.
    "short_ppb INTEGER",
    "long_ppb INTEGER",
    "outside_ppb INTEGER",
)
"""Columns of a forecast that were not there from the beginning."""

_MIGRATIONS: Final = {
    1: (
        """CREATE TABLE calibration (
            market INTEGER NOT NULL, model INTEGER NOT NULL, symbol INTEGER NOT NULL,
            saved_s INTEGER NOT NULL, state BLOB NOT NULL,
            PRIMARY KEY (market, model, symbol)) WITHOUT ROWID""",
    ),
    2: (
        "ALTER TABLE calibration RENAME TO calibration_2",
        *_LEARNT,
        """INSERT INTO calibration
            SELECT market, model, symbol, saved_s / 86400, saved_s, state FROM calibration_2""",
        "DROP TABLE calibration_2",
        *(f"ALTER TABLE forecast ADD COLUMN {column}" for column in _BASIS),
    ),
}
"""What makes the next schema of one; every row that is there stays."""

_TABLES: Final = (
    *_LEARNT,
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
    f"""CREATE TABLE forecast (
        market INTEGER NOT NULL, close_s INTEGER NOT NULL, symbol INTEGER NOT NULL,
        delay_ms INTEGER NOT NULL, -- published after the close
        last_close REAL NOT NULL, predicted_close REAL NOT NULL, lower REAL, upper REAL,
        model INTEGER NOT NULL, late INTEGER NOT NULL, {", ".join(_BASIS)},
        PRIMARY KEY (market, close_s, symbol)) WITHOUT ROWID""",
)

_ENDS: Final = tuple(
    f"SELECT * FROM {table} ORDER BY market {order}, {column} {order} LIMIT 1"  # noqa: S608 - the names stand below
    for table, column in (("candle", "open_s"), ("forecast", "close_s"))
    for order in ("ASC", "DESC")
)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, or create it where there is none (its folder must exist).

    Raises:
        HistoryError: it is not candlecast's, of another schema, or damaged. It is left as it is.
    """
    _refuse_foreign(path)
    with errors(path):
        # Opened at the start by one thread, then used by another: one at a time.
        database = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(database, path)
        except BaseException:
            database.close()
            raise
    return database


def _refuse_foreign(path: Path) -> None:
    """Look at the header before SQLite does, which would write to whatever it opens."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        msg = f"history {path} cannot be read: {error.strerror}"
        raise HistoryError(msg) from None
    application_id = int.from_bytes(header[_APPLICATION_ID_AT], "big")
    if header and (not header.startswith(_MAGIC) or application_id != APPLICATION_ID):
        msg = f"history {path} is not a candlecast database; move it away or change paths.state"
        raise HistoryError(msg)


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    with transaction(database, path):
        (application_id,) = database.execute("PRAGMA application_id").fetchone()
        if application_id == 0:
            _create(database)
        else:
            _migrate(database)
    (schema,) = database.execute("PRAGMA user_version").fetchone()
    if schema != SCHEMA:
        msg = (
            f"history {path} has schema {schema}, this version of candlecast needs {SCHEMA}; "
            "use the version that wrote it, or move the file away"
        )
        raise HistoryError(msg)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    _check(database, path)


def _create(database: sqlite3.Connection) -> None:
    # In one transaction of the old journal, before WAL: a kill leaves all of it or an empty file,
    # and the header is in the main file, where the next start looks for it.
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {SCHEMA}")
    for table in _TABLES:
        database.execute(table)


def _migrate(database: sqlite3.Connection) -> None:
    (schema,) = database.execute("PRAGMA user_version").fetchone()
    while schema in _MIGRATIONS:
        for statement in _MIGRATIONS[schema]:
            database.execute(statement)
        schema += 1
        database.execute(f"PRAGMA user_version = {schema}")


def _check(database: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size <= _WHOLE_CHECK_BYTES:
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict.splitlines()[-1])
    for end in _ENDS:
        database.execute(end).fetchall()


def one(database: sqlite3.Connection, statement: str, *values: object) -> int | None:
    """The one number that a statement asks for; None if it finds no row."""
    row: tuple[int | None] | None = database.execute(statement, values).fetchone()
    return None if row is None else row[0]


@contextmanager
def transaction(database: sqlite3.Connection, path: Path) -> Iterator[None]:
    """All of the block's changes or none.

    Raises:
        HistoryError: the file cannot be written now; nothing was changed.
    """
    with errors(path):
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
            database.execute("COMMIT")
        except BaseException:
            # A full disk has rolled back already.
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into one line that names the file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        msg = f"history {path} cannot be used now: {error}"
        raise HistoryError(msg) from error
    # What SQLite quotes of a damaged file need not be text.
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        msg = (
            f"history {path} is damaged ({error}); it was left as it is: "
            "restore a copy or move it away"
        )
        raise HistoryError(msg) from error
