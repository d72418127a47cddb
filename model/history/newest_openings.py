"""Find out which candles cannot be revisions of stored ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from model.history.database import one
from model.history.row_codec import CandleRow
from model.history.statements import NEWEST_CANDLE


class Separated(NamedTuple):
    """Rows of the table ``candle``.

    Attributes:
        first: the first candle of its period each; nothing is stored of it.
        others: those that may repeat or revise a stored candle, or one of `first`.
    """

    first: list[CandleRow]
    others: list[CandleRow]


class NewestOpenings:
    """The newest opening of each symbol that the database can have, for the market being written.

    A candle that opened after it needs no comparison with a stored one, which costs more than
    inserting it. After a rollback it is later than the newest stored one, which costs only time.

    Args:
        database: of the history; other processes may write to it as well.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._newest_s: dict[int, int] = {}
        # Of the whole market, for symbols that are not in `_newest_s`.
        self._market_newest_s = -1
        # The market, and SQLite's number for the state that other connections have written.
        self._valid_for: tuple[int, int] | None = None

    def separate(self, market: int, rows: Iterable[CandleRow]) -> Separated:
        """Separate rows that are about to be inserted; call it within their transaction.

        Args:
            market: of all the rows.
            rows: in the order in which the candles came.
        """
        self._reload_if_changed(market)
        newest_s, separated = self._newest_s, Separated([], [])
        for row in rows:
            _, open_s, symbol = row[:3]
            if open_s > newest_s.get(symbol, self._market_newest_s):
                newest_s[symbol] = open_s
                separated.first.append(row)
            else:
                separated.others.append(row)
        return separated

    def _reload_if_changed(self, market: int) -> None:
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if self._valid_for == (market, version):
            return
        newest_s = one(self._db, NEWEST_CANDLE, market)
        self._market_newest_s = -1 if newest_s is None else newest_s
        self._newest_s.clear()
        self._valid_for = market, version
