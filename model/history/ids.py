"""Map names to integer ids to keep rows small."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import astuple

from model.core.market import MarketKey
from model.forecasts.rules import Rules
from model.history.database import one

ModelKey = tuple[str, str]
"""Version and SHA-256."""


class IdTable:
    """The names of one database; all that gives out ids belongs into a transaction."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def find_market(self, market: MarketKey) -> int | None:
        """The id of a market; None if nothing of it was ever written."""
        statement = "SELECT id FROM market WHERE exchange = ? AND timeframe = ?"
        return one(self._db, statement, market.exchange, market.timeframe.text)

    def find_model(self, sha256: str) -> int | None:
        """The id of a model; None if nothing of it was ever written."""
        return one(self._db, "SELECT id FROM model WHERE sha256 = ?", sha256)

    def find_symbol(self, symbol: str) -> int | None:
        """The id of a symbol; None if nothing of it was ever written."""
        return one(self._db, "SELECT id FROM symbol WHERE name = ?", symbol)

    def market(self, market: MarketKey) -> int:
        """The id of a market, now if not before."""
        return self.find_market(market) or self._insert(
            "INSERT INTO market (exchange, timeframe) VALUES (?, ?)",
            market.exchange,
            market.timeframe.text,
        )

    def model(self, model: ModelKey) -> int:
        """The id of a model, now if not before."""
        return self.find_model(model[1]) or self._insert(
            "INSERT INTO model (version, sha256) VALUES (?, ?)", *model
        )

    def rules(self, rules: Rules) -> int:
        """The id of what was asked of intervals and probabilities, now if not before."""
        values = astuple(rules)
        return one(
            self._db,
            """SELECT id FROM rules WHERE level = ? AND gamma = ? AND min_n = ?
               AND threshold IS ? AND multiple = ?""",
            *values,
        ) or self._insert(
            """INSERT INTO rules (level, gamma, min_n, threshold, multiple)
               VALUES (?, ?, ?, ?, ?)""",
            *values,
        )

    def symbols(self) -> Callable[[str], int]:
        """Look up or give out ids of symbols, within one transaction.

        They are not remembered longer: after a transaction that was rolled back, rows would point
        at names that were never written.
        """
        known: dict[str, int] = dict(self._db.execute("SELECT name, id FROM symbol"))

        def symbol_id(name: str) -> int:
            found = known.get(name)
            if found is None:
                found = known[name] = self._insert("INSERT INTO symbol (name) VALUES (?)", name)
            return found

        return symbol_id

    def _insert(self, statement: str, *values: object) -> int:
        (row_id,) = self._db.execute(f"{statement} RETURNING id", values).fetchall()[0]
        return int(row_id)
