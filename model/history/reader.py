"""Read candles, published forecasts and calibration states back from the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

from model.core.candle import Candle
from model.core.errors import HistoryError
from model.core.market import MarketKey
from model.forecasts.rules import Rules
from model.history.database import errors, open_database
from model.history.ids import IdTable
from model.history.row_codec import candle_of, newest_ranked, share_of

_REVISIONS: Final = """
WITH RECURSIVE slot(open_s) AS (
    SELECT :from_s UNION ALL SELECT open_s + :step_s FROM slot WHERE open_s + :step_s < :until_s)
SELECT c.open_s, c.delay_ms, c.open, c.high, c.low, c.close, c.volume, c.final_by, c.filled
FROM slot CROSS JOIN candle AS c
    ON c.market = :market AND c.open_s = slot.open_s AND c.symbol = :symbol
ORDER BY c.open_s, c.delay_ms
"""

_SPOKEN: Final = """
SELECT s.name, m.version, m.sha256, min(f.close_s), max(f.close_s), count(*)
FROM forecast AS f JOIN symbol AS s ON s.id = f.symbol JOIN model AS m ON m.id = f.model
WHERE f.market = ? AND f.close_s >= ? AND f.close_s < ? GROUP BY f.symbol, f.model
ORDER BY s.name, m.version
"""

_PUBLISHED: Final = """
WITH RECURSIVE slot(close_s) AS (
    SELECT :from_s UNION ALL SELECT close_s + :step_s FROM slot WHERE close_s + :step_s < :until_s)
SELECT f.close_s, f.delay_ms, f.last_close, f.predicted_close, f.lower, f.upper, f.threshold,
    f.short_ppb, f.long_ppb, f.outside_ppb, f.learnt,
    r.level, r.gamma, r.min_n, r.threshold, r.multiple
FROM slot CROSS JOIN forecast AS f
    ON f.market = :market AND f.close_s = slot.close_s AND f.symbol = :symbol
LEFT JOIN rules AS r ON r.id = f.rules
WHERE f.model = :model ORDER BY f.close_s
"""

_STATES: Final = """
SELECT 1000 * saved_s, state FROM calibration
WHERE market = :market AND model = :model AND symbol = :symbol ORDER BY day
"""

_SCALERS: Final = """
SELECT fitted_ms, state FROM scaler
WHERE market = :market AND model = :model AND symbol = :symbol ORDER BY fitted_ms
"""

Saved = list[tuple[int, bytes]]
"""When something was written down (Unix milliseconds), and what; ascending."""


class ForecastGroup(NamedTuple):
    """That a model forecast a symbol.

    Attributes:
        symbol: ccxt symbol.
        version: of the model.
        sha256: of its manifest.
        first_ms: closing of the newest candle of its first forecast, Unix milliseconds.
        last_ms: of its last one.
        forecasts: how many.
    """

    symbol: str
    version: str
    sha256: str
    first_ms: int
    last_ms: int
    forecasts: int


class Published(NamedTuple):
    """A forecast that was published; prices in quote currency.

    Attributes:
        symbol: ccxt symbol.
        candle_close_ms: closing of the newest candle it was made from, Unix milliseconds.
        published_ms: wall clock when it was made ready.
        last_close: close of that candle.
        predicted_close: forecast of the next close.
        lower: of the interval; None where there was none.
        upper: likewise.
        threshold: a return, of the probabilities; None where there were none.
        short: probability of a return below -threshold, to a billionth.
        long: of one above.
        out_of_range: share of scaled values outside what the scaler was fitted on.
        learnt: how many forecasts of the symbol the calibration had learnt from; None where the
            forecast was written before history kept that.
        rules: what was asked of interval and probabilities; None likewise.
    """

    symbol: str
    candle_close_ms: int
    published_ms: int
    last_close: float
    predicted_close: float
    lower: float | None
    upper: float | None
    threshold: float | None
    short: float | None
    long: float | None
    out_of_range: float | None
    learnt: int | None
    rules: Rules | None


class HistoryReader:
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
        self._step_ms = market.timeframe.ms
        self._db = open_database(path)
        self._names = IdTable(self._db)

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
                "market": self._names.find_market(self._market),
                "symbol": self._names.find_symbol(symbol),
                "from_s": from_ms // 1000,
                "until_s": until_ms // 1000,
                "step_s": self._step_ms // 1000,
            }
            return [
                candle_of(symbol, self._step_ms, r) for r in self._db.execute(_REVISIONS, where)
            ]

    def spoken(self, from_ms: int, until_ms: int) -> list[ForecastGroup]:
        """Who forecast what from candles that closed from ``from_ms`` to before ``until_ms``.

        Returns:
            Ascending by symbol, then by model.

        Raises:
            HistoryError: the file cannot be read.
        """
        with errors(self._path):
            span = -(-from_ms // 1000), -(-until_ms // 1000)
            market = self._names.find_market(self._market)
            return [
                ForecastGroup(name, version, sha256, first_s * 1000, last_s * 1000, count)
                for name, version, sha256, first_s, last_s, count in self._db.execute(
                    _SPOKEN, (market, *span)
                )
            ]

    def published(self, spoken: ForecastGroup, from_ms: int) -> list[Published]:
        """What a model forecast of a symbol, from ``from_ms`` to its last forecast there.

        Args:
            spoken: model, symbol and the end.
            from_ms: closing of a candle, Unix milliseconds.

        Returns:
            Ascending by time.

        Raises:
            HistoryError: the file cannot be read.
        """
        step_s = self._step_ms // 1000
        grid = {
            "from_s": from_ms // 1000,
            "until_s": spoken.last_ms // 1000 + step_s,
            "step_s": step_s,
        }
        with errors(self._path):
            rows = self._db.execute(_PUBLISHED, self._ids(spoken) | grid)
            return [_published(spoken.symbol, row) for row in rows]

    def states(self, spoken: ForecastGroup) -> Saved:
        """The last state of every day of a model's calibration of a symbol.

        Raises:
            HistoryError: the file cannot be read.
        """
        with errors(self._path):
            return self._db.execute(_STATES, self._ids(spoken)).fetchall()

    def scalers(self, spoken: ForecastGroup) -> Saved:
        """The scalers that were fitted for a model and a symbol while the model was at work.

        Raises:
            HistoryError: the file cannot be read.
        """
        with errors(self._path):
            return self._db.execute(_SCALERS, self._ids(spoken)).fetchall()

    def _ids(self, spoken: ForecastGroup) -> dict[str, int | None]:
        return {
            "market": self._names.find_market(self._market),
            "model": self._names.find_model(spoken.sha256),
            "symbol": self._names.find_symbol(spoken.symbol),
        }


def _published(symbol: str, row: tuple[Any, ...]) -> Published:
    close_s, delay_ms, last, predicted, lower, upper, threshold, *shares, learnt, level = row[:12]
    close_ms = close_s * 1000
    rules = None if level is None else Rules(level, *row[12:])
    told = (threshold, *map(share_of, shares), learnt, rules)
    return Published(symbol, close_ms, close_ms + delay_ms, last, predicted, lower, upper, *told)


def newest_known(revisions: list[Candle], known_ms: int | None = None) -> list[Candle]:
    """The revision of each candle that counts, of those that had come by ``known_ms``.

    A candle that was filled or repaired never replaces what the exchange had told.

    Args:
        revisions: ascending by opening time, then by receipt.
        known_ms: Unix milliseconds; None: all that have ever come.
    """
    return newest_ranked(
        candle for candle in revisions if known_ms is None or candle.received_ms <= known_ms
    )
