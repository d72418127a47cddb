"""History read back: candles as they were known at a time, and what was published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from model.candle import Candle, Timeframe
from model.database import errors, open_database
from model.errors import HistoryError
from model.history import MarketKey, candle_of

_MARKET: Final = "SELECT id FROM market WHERE exchange = ? AND timeframe = ?"
_SYMBOL: Final = "SELECT id FROM symbol WHERE name = ?"

_REVISIONS: Final = """
WITH RECURSIVE slot(open_s) AS (
    SELECT :from_s UNION ALL SELECT open_s + :step_s FROM slot WHERE open_s + :step_s < :until_s)
SELECT c.open_s, c.delay_ms, c.open, c.high, c.low, c.close, c.volume, c.final_by, c.filled
FROM slot CROSS JOIN candle AS c
    ON c.market = :market AND c.open_s = slot.open_s AND c.symbol = :symbol
ORDER BY c.open_s, c.delay_ms
"""

_PUBLISHED: Final = """
SELECT s.name, f.close_s, f.delay_ms, f.last_close, f.predicted_close, m.version, m.sha256
FROM forecast AS f JOIN symbol AS s ON s.id = f.symbol JOIN model AS m ON m.id = f.model
WHERE f.market = ? AND f.close_s >= ? AND f.close_s < ? ORDER BY f.close_s, s.name
"""


class Published(NamedTuple):
    """A forecast that was published; prices in quote currency.

    Attributes:
        symbol: ccxt symbol.
        candle_close_ms: closing of the newest candle it was made from, Unix milliseconds.
        published_ms: wall clock when it was made ready.
        last_close: close of that candle.
        predicted_close: forecast of the next close.
        version: of the model.
        sha256: of the model's manifest.
    """

    symbol: str
    candle_close_ms: int
    published_ms: int
    last_close: float
    predicted_close: float
    version: str
    sha256: str


class Archive:
    """What the history of one exchange and timeframe holds; used by one thread.

    Args:
        path: the database; it must exist.
        market: exchange (ccxt id) and timeframe.

    Raises:
        HistoryError: there is no such file, or it is not candlecast's, of another schema, or
            damaged.
    """

    def __init__(self, path: Path, market: MarketKey) -> None:
        if not path.exists():
            msg = f"there is no history at {path}; candlecast run and candlecast retrain write it"
            raise HistoryError(msg)
        self._path = path
        self._market = market
        self._step_ms = Timeframe.parse(market[1]).ms
        self._db = open_database(path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def revisions(self, symbol: str, from_ms: int, until_ms: int) -> list[Candle]:
        """Every revision of the candles that opened from ``from_ms`` to before ``until_ms``.

        Args:
            symbol: ccxt symbol.
            from_ms: a boundary of the timeframe, Unix milliseconds.
            until_ms: Unix milliseconds.

        Returns:
            Ascending by opening time, then by receipt. ``received_s`` is 0.0.

        Raises:
            HistoryError: the file cannot be read.
        """
        if until_ms <= from_ms:
            return []
        with errors(self._path):
            where = {
                "market": self._one(_MARKET, *self._market),
                "symbol": self._one(_SYMBOL, symbol),
                "from_s": from_ms // 1000,
                "until_s": until_ms // 1000,
                "step_s": self._step_ms // 1000,
            }
            return [
                candle_of(symbol, self._step_ms, r) for r in self._db.execute(_REVISIONS, where)
            ]

    def published(self, from_ms: int, until_ms: int) -> Iterator[Published]:
        """Forecasts made of candles that closed from ``from_ms`` to before ``until_ms``.

        Yields:
            Ascending by time, then by symbol.

        Raises:
            HistoryError: the file cannot be read.
        """
        with errors(self._path):
            market = self._one(_MARKET, *self._market)
            span = (market, -(-from_ms // 1000), -(-until_ms // 1000))
            for name, close_s, delay_ms, *rest in self._db.execute(_PUBLISHED, span):
                close_ms = close_s * 1000
                yield Published(name, close_ms, close_ms + delay_ms, *rest)

    def _one(self, statement: str, *values: object) -> int | None:
        row = self._db.execute(statement, values).fetchone()
        return None if row is None else row[0]


def newest_known(revisions: list[Candle], known_ms: int | None = None) -> list[Candle]:
    """The newest revision of each candle, of those that had come by ``known_ms``.

    A flat candle in place of a missing one never replaces what the exchange had told.

    Args:
        revisions: ascending by opening time, then by receipt.
        known_ms: Unix milliseconds; None: all that have ever come.
    """
    newest: dict[int, Candle] = {}
    for candle in revisions:
        if known_ms is not None and candle.received_ms > known_ms:
            continue
        before = newest.get(candle.open_ms)
        if before is None or before.filled or not candle.filled:
            newest[candle.open_ms] = candle
    return list(newest.values())
