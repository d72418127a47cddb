"""Write candles, forecasts and calibration states to the history, and query and prune them.

Rows are laid out by time, not by symbol: what closes together is written side by side, so that a
flush of 1,000 symbols touches some 20 pages instead of 1,000 and pruning frees whole pages. One
symbol is read by stepping along the grid of its timeframe. Whole seconds and delays instead of
millisecond stamps, and ids instead of names, keep a candle at about 70 bytes.

What became of a forecast is not stored a second time: it is the first revision of the candle that
opened when the forecast was published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from model.core.candle import Candle
from model.core.market import MarketKey
from model.forecasts.forecast import Forecast, ForecastRow
from model.history.database import errors, one, open_database, transaction
from model.history.ids import IdTable, ModelKey
from model.history.row_codec import candle_of, candle_row, forecast_row, newest_ranked

_DAY_S: Final = 86_400
_DAY_MS: Final = 1000 * _DAY_S

# A candle that only repeats the newest revision says nothing new: backfill overlaps on purpose.
# Of two revisions within one millisecond the later one stays.
_ADD_CANDLE: Final = """
WITH new(market, open_s, symbol, delay_ms, open, high, low, close, volume, final_by, filled) AS (
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
INSERT OR REPLACE INTO candle SELECT * FROM new
WHERE NOT EXISTS (
    SELECT 1 FROM (
        SELECT open, high, low, close, volume FROM candle
        WHERE market = new.market AND open_s = new.open_s AND symbol = new.symbol
        ORDER BY delay_ms DESC LIMIT 1) AS known
    WHERE known.open = new.open AND known.high = new.high AND known.low = new.low
    AND known.close = new.close AND known.volume = new.volume)
"""

# What was published first is what was published.
_ADD_FORECAST: Final = """
INSERT INTO forecast VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

_CANDLES: Final = """
WITH RECURSIVE slot(open_s) AS (
    SELECT :newest_s UNION ALL SELECT open_s - :step_s FROM slot WHERE open_s > :oldest_s)
SELECT c.open_s, c.delay_ms, c.open, c.high, c.low, c.close, c.volume, c.final_by, c.filled
FROM slot CROSS JOIN candle AS c
    ON c.market = :market AND c.open_s = slot.open_s AND c.symbol = :symbol
ORDER BY c.open_s, c.delay_ms
"""

_OFF_GRID: Final = """
SELECT count(*) FROM candle WHERE market = ? AND open_s >= ? AND (open_s - ?) % ? != 0
"""

_FORECASTS: Final = """
WITH RECURSIVE slot(close_s) AS (
    SELECT :newest_s UNION ALL SELECT close_s - :step_s FROM slot WHERE close_s > :oldest_s)
SELECT f.close_s, f.last_close, f.predicted_close, f.lower, f.upper
FROM slot CROSS JOIN forecast AS f
    ON f.market = :market AND f.close_s = slot.close_s AND f.symbol = :symbol
ORDER BY f.close_s
"""

_OUTCOMES: Final = """
SELECT s.name, f.close_s, f.last_close, f.predicted_close, f.lower, f.upper, (
    SELECT c.close FROM candle AS c
    WHERE c.market = f.market AND c.open_s = f.close_s AND c.symbol = f.symbol
    ORDER BY c.delay_ms LIMIT 1)
FROM forecast AS f JOIN symbol AS s ON s.id = f.symbol
WHERE f.market = ? AND f.close_s > ? ORDER BY f.close_s
"""

# What was learnt on a day is replaced until the day is over: `replay` starts from its end.
_SAVE_CALIBRATION: Final = "INSERT OR REPLACE INTO calibration VALUES (?, ?, ?, ?, ?, ?)"

_ADD_SCALER: Final = "INSERT OR REPLACE INTO scaler VALUES (?, ?, ?, ?, ?)"

_NEWEST: Final = """
SELECT name, state FROM (
    SELECT s.name, (
        SELECT t.state FROM {table} AS t WHERE t.market = ? AND t.model = ? AND t.symbol = s.id
        ORDER BY t.{when} DESC LIMIT 1) AS state
    FROM symbol AS s)
WHERE state IS NOT NULL
"""

# Each pair finds the last opening of a slice, then deletes up to it.
_PRUNE_CANDLES: Final = (
    "SELECT open_s FROM candle WHERE market = ? AND open_s < ? ORDER BY 1 LIMIT 1 OFFSET ?",
    "DELETE FROM candle WHERE market = ? AND open_s < ?",
)
_PRUNE_FORECASTS: Final = (
    "SELECT close_s FROM forecast WHERE market = ? AND close_s < ? ORDER BY 1 LIMIT 1 OFFSET ?",
    "DELETE FROM forecast WHERE market = ? AND close_s < ?",
)

# A model that has not served for so long starts from its bundle again, and fits anew.
_PRUNE_CALIBRATION: Final = "DELETE FROM calibration WHERE day < ?"
_PRUNE_SCALERS: Final = """
DELETE FROM scaler WHERE fitted_ms < ? AND NOT EXISTS (
    SELECT 1 FROM calibration AS c
    WHERE c.market = scaler.market AND c.model = scaler.model AND c.symbol = scaler.symbol)
"""

SavedCalibration = tuple[int, dict[str, bytes]]
"""When (Unix milliseconds), and the states by symbol."""


class FittedScaler(NamedTuple):
    """A scaler that no bundle has, since it was fitted while its model was at work.

    Attributes:
        model: which one.
        symbol: ccxt symbol.
        fitted_ms: wall clock, Unix milliseconds; before any forecast that was made with it.
        state: see `model.features.scaler.SymbolScaler.encode`.
    """

    model: ModelKey
    symbol: str
    fitted_ms: int
    state: bytes


class Outcome(NamedTuple):
    """A published forecast and the close that came; None while its candle has not come."""

    forecast: ForecastRow
    close: float | None


class History:
    """The database, used by one thread at a time.

    Args:
        path: the file; it is created where there is none, its folder must exist.

    Raises:
        HistoryError: the file is not candlecast's, of another schema, or damaged. It is left as
            it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = open_database(path)
        self._names = IdTable(self._db)

    def close(self) -> None:
        """Close the file; a clean end leaves no write-ahead log."""
        self._db.close()

    def add_candles(self, market: MarketKey, candles: Iterable[Candle]) -> None:
        """Append closed candles in one transaction; equal repetitions are left out.

        Args:
            market: of all the candles.
            candles: closed ones, in any order.

        Raises:
            HistoryError: nothing of it was written.
            ValueError: a candle is still forming; nothing of it was written.
        """
        with transaction(self._db, self._path):
            market_id = self._names.market(market)
            symbol_id = self._names.symbols()
            self._db.executemany(
                _ADD_CANDLE, (candle_row(market_id, symbol_id(c.symbol), c) for c in candles)
            )

    def add_forecasts(self, forecasts: Iterable[Forecast]) -> None:
        """Append published forecasts in one transaction; an identity that is there stays.

        Raises:
            HistoryError: nothing of it was written.
        """
        with transaction(self._db, self._path):
            symbol_id = self._names.symbols()
            groups: dict[tuple[object, ...], tuple[int, int, int]] = {}
            for f in forecasts:
                group = (f.exchange, f.timeframe, f.model.sha256, f.basis.rules)
                if group not in groups:
                    groups[group] = (
                        self._names.market(MarketKey.parse(f.exchange, f.timeframe)),
                        self._names.model((f.model.version, f.model.sha256)),
                        self._names.rules(f.basis.rules),
                    )
                row = forecast_row(*groups[group], symbol_id(f.symbol), f)
                self._db.execute(_ADD_FORECAST, row)

    def candles(
        self,
        market: MarketKey,
        symbol: str,
        limit: int,
        newest_ms: int | None = None,
    ) -> list[Candle]:
        """The revision of each candle that counts, among ``limit`` openings in a row.

        That is the newest one of the highest `Candle.rank`. Candles that cannot be true, as earlier
        versions let them in, are left out.

        ``received_s`` is 0.0, since the monotonic clock of the process that received them is gone.

        Args:
            market: exchange and timeframe.
            symbol: ccxt symbol.
            limit: openings of the span; candles between them are off the grid and left out.
            newest_ms: the last opening of the span, Unix milliseconds. None: that of the market's
                newest candle, of whatever symbol; a symbol that fell silent has fewer candles.

        Returns:
            Ascending by opening time, possibly with gaps.

        Raises:
            HistoryError: the file cannot be read.
        """
        step_s = market.timeframe.ms // 1000
        with errors(self._path):
            market_id = self._names.find_market(market)
            newest_s = (
                one(self._db, "SELECT max(open_s) FROM candle WHERE market = ?", market_id)
                if newest_ms is None
                else newest_ms // 1000
            )
            if newest_s is None:
                return []
            where = self._span(market_id, symbol, newest_s, step_s, limit)
            rows = self._db.execute(_CANDLES, where)
            return newest_ranked(candle_of(symbol, step_s * 1000, row) for row in rows)

    def count_off_grid(self, market: MarketKey, since_ms: int) -> int:
        """How many rows since a time (Unix milliseconds) are of candles off a grid.

        Raises:
            HistoryError: the file cannot be read.
        """
        with errors(self._path):
            market_id = self._names.find_market(market)
            grid_s = market.timeframe.origin_ms // 1000, market.timeframe.ms // 1000
            return one(self._db, _OFF_GRID, market_id, since_ms // 1000, *grid_s) or 0

    def _span(
        self, market_id: int | None, symbol: str, newest_s: int, step_s: int, limit: int
    ) -> dict[str, Any]:
        """Where a symbol's rows of the market's last ``limit`` candles are."""
        return {
            "market": market_id,
            "symbol": self._names.find_symbol(symbol),
            "newest_s": newest_s,
            "oldest_s": newest_s - step_s * (limit - 1),
            "step_s": step_s,
        }

    def forecasts(self, market: MarketKey, symbol: str, limit: int) -> list[ForecastRow]:
        """One symbol's forecasts among the market's last ``limit`` candles.

        Returns:
            Ascending by time, possibly with gaps.

        Raises:
            HistoryError: the file cannot be read.
        """
        step_s = market.timeframe.ms // 1000
        with errors(self._path):
            market_id = self._names.find_market(market)
            newest_s = one(
                self._db, "SELECT max(close_s) FROM forecast WHERE market = ?", market_id
            )
            if newest_s is None:
                return []
            where = self._span(market_id, symbol, newest_s, step_s, limit)
            return [
                ForecastRow(symbol, close_s * 1000, (close_s + step_s) * 1000, *rest)
                for close_s, *rest in self._db.execute(_FORECASTS, where)
            ]

    def outcomes(self, market: MarketKey, limit: int) -> Iterator[Outcome]:
        """Forecasts of the market's last ``limit`` candles with the closes that came.

        The close is that of the first final revision, which is what a forecast is scored with.

        Yields:
            Ascending by time.

        Raises:
            HistoryError: the file cannot be read.
        """
        step_s = market.timeframe.ms // 1000
        with errors(self._path):
            market_id = self._names.find_market(market)
            newest_s = one(
                self._db, "SELECT max(close_s) FROM forecast WHERE market = ?", market_id
            )
            if newest_s is None:
                return
            after_s = newest_s - step_s * limit
            for name, close_s, *rest, close in self._db.execute(_OUTCOMES, (market_id, after_s)):
                row = ForecastRow(name, close_s * 1000, (close_s + step_s) * 1000, *rest)
                yield Outcome(row, close)

    def save_calibration(self, market: MarketKey, model: ModelKey, saved: SavedCalibration) -> None:
        """Replace what the model's calibration had learnt that day, in one transaction.

        Args:
            market: exchange (ccxt id) and timeframe.
            model: version and SHA-256.
            saved: wall clock (Unix milliseconds) and states by symbol.

        Raises:
            HistoryError: nothing of it was written.
        """
        saved_ms, states = saved
        saved_s = saved_ms // 1000
        with transaction(self._db, self._path):
            ids = self._names.market(market), self._names.model(model)
            symbol_id = self._names.symbols()
            self._db.executemany(
                _SAVE_CALIBRATION,
                (
                    (*ids, symbol_id(symbol), saved_s // _DAY_S, saved_s, state)
                    for symbol, state in states.items()
                ),
            )

    def calibration(self, market: MarketKey, sha256: str) -> dict[str, bytes]:
        """What the calibration of a model had learnt, by symbol; empty when nothing was saved.

        Raises:
            HistoryError: the file cannot be read.
        """
        return self._newest(_NEWEST.format(table="calibration", when="day"), market, sha256)

    def add_scalers(self, market: MarketKey, scalers: Iterable[FittedScaler]) -> None:
        """Append scalers that were fitted while models were at work, in one transaction.

        Raises:
            HistoryError: nothing of it was written.
        """
        with transaction(self._db, self._path):
            place = self._names.market(market)
            symbol_id = self._names.symbols()
            for model, symbol, fitted_ms, state in scalers:
                row = place, self._names.model(model), symbol_id(symbol), fitted_ms, state
                self._db.execute(_ADD_SCALER, row)

    def scalers(self, market: MarketKey, sha256: str) -> dict[str, bytes]:
        """The newest scalers that were fitted for a model while it was at work, by symbol.

        Raises:
            HistoryError: the file cannot be read.
        """
        return self._newest(_NEWEST.format(table="scaler", when="fitted_ms"), market, sha256)

    def _newest(self, statement: str, market: MarketKey, sha256: str) -> dict[str, bytes]:
        with errors(self._path):
            where = self._names.find_market(market), self._names.find_model(sha256)
            return dict(self._db.execute(statement, where))

    def prune(self, keep_days: float, now_ms: int, max_rows: int = 10_000) -> int:
        """Delete one slice of what is older than ``keep_days``; call again until it returns 0.

        The file does not shrink; what is freed is written again.

        Args:
            keep_days: days to keep, by opening time.
            now_ms: Unix milliseconds.
            max_rows: rows per table and market in one slice, exceeded by at most the symbols of
                one candle.

        Returns:
            Rows deleted.

        Raises:
            HistoryError: nothing of it was deleted.
        """
        before_s = int(now_ms - keep_days * _DAY_MS) // 1000
        deleted = 0
        with transaction(self._db, self._path):
            for (market,) in self._db.execute("SELECT id FROM market").fetchall():
                for slice_end, delete in (_PRUNE_CANDLES, _PRUNE_FORECASTS):
                    end_s = one(self._db, slice_end, market, before_s, max_rows - 1)
                    until_s = before_s if end_s is None else end_s + 1
                    deleted += self._db.execute(delete, (market, until_s)).rowcount
            deleted += self._db.execute(_PRUNE_CALIBRATION, (before_s // _DAY_S,)).rowcount
            deleted += self._db.execute(_PRUNE_SCALERS, (before_s * 1000,)).rowcount
        return deleted
