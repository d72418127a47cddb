"""Delete the rows of the history that are older than they are kept."""

from __future__ import annotations

import sqlite3
from typing import Final

from model.history.database import one
from model.history.statements import (
    PRUNE_CALIBRATION,
    PRUNE_CANDLES,
    PRUNE_FORECASTS,
    PRUNE_SCALERS,
)

DAY_S: Final = 86_400
"""One calibration state of a model and symbol is kept for each of these days."""


def prune_slice(database: sqlite3.Connection, before_s: int, max_rows: int) -> int:
    """Delete one slice of rows, within a transaction.

    Args:
        database: of the history.
        before_s: opening times before it are old, Unix seconds.
        max_rows: rows per table and market; the symbols of one candle may exceed it.

    Returns:
        Rows deleted; 0 when nothing is left to delete.
    """
    deleted = 0
    for (market,) in database.execute("SELECT id FROM market").fetchall():
        for slice_end, delete in (PRUNE_CANDLES, PRUNE_FORECASTS):
            end_s = one(database, slice_end, market, before_s, max_rows - 1)
            until_s = before_s if end_s is None else end_s + 1
            deleted += database.execute(delete, (market, until_s)).rowcount
    deleted += database.execute(PRUNE_CALIBRATION, (before_s // DAY_S,)).rowcount
    deleted += database.execute(PRUNE_SCALERS, (before_s * 1000,)).rowcount
    return deleted
