"""Map names to integer ids to keep rows small."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple
from typing import Final

from model.core.market import MarketKey
from model.forecasts.rules import Rules
from model.history.database import one

ModelKey = tuple[str, str]
"""Version and SHA-256."""


class SymbolIds(dict[str, int]):
    """The ids of symbols; one that has none yet is inserted when its id is asked for."""

    def __init__(self, table: IdTable) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, symbol: str) -> int:
        """Look up a symbol, or insert it."""
        found = self[symbol] = self._table.symbol_id(symbol)
        return found


class IdTable:
    """The ids of one database; call methods that may insert within a transaction.

    Attributes:
        symbol_ids: those that were asked for since the start or the last rollback. Clear it after
            a rollback: it may hold ids that were never committed. Committed ones never change.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self.symbol_ids: Final = SymbolIds(self)

    def find_market(self, market: MarketKey) -> int | None:
        """Look up a market; None if it has no id yet."""
        statement = "SELECT id FROM market WHERE exchange = ? AND timeframe = ?"
        return one(self._db, statement, market.exchange, market.timeframe.text)

    def find_model(self, sha256: str) -> int | None:
        """Look up a model; None if it has no id yet."""
        return one(self._db, "SELECT id FROM model WHERE sha256 = ?", sha256)

    def find_symbol(self, symbol: str) -> int | None:
        """Look up a symbol; None if it has no id yet."""
        return one(self._db, "SELECT id FROM symbol WHERE name = ?", symbol)

    def market_id(self, market: MarketKey) -> int:
        """Look up a market, or insert it."""
        return self.find_market(market) or self._insert(
            "INSERT INTO market (exchange, timeframe) VALUES (?, ?)",
            market.exchange,
            market.timeframe.text,
        )

    def symbol_id(self, symbol: str) -> int:
        """Look up a symbol, or insert it."""
        return self.find_symbol(symbol) or self._insert(
            "INSERT INTO symbol (name) VALUES (?)", symbol
        )

    def model_id(self, model: ModelKey) -> int:
        """Look up a model, or insert it."""
        return self.find_model(model[1]) or self._insert(
            "INSERT INTO model (version, sha256) VALUES (?, ?)", *model
        )

    def rules_id(self, rules: Rules) -> int:
        """Look up the rules of intervals and probabilities, or insert them."""
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

    def _insert(self, statement: str, *values: object) -> int:
        (row_id,) = self._db.execute(f"{statement} RETURNING id", values).fetchall()[0]
        return int(row_id)
