"""Write candles, forecasts and calibration states to the history, and query and prune them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from model.core.candle import Candle
from model.core.market import MarketKey
from model.forecasts.forecast import ForecastRow
from model.history.database import errors, one, open_database, transaction
from model.history.ids import IdTable, ModelKey
from model.history.insertion import Inserter
from model.history.pruning import DAY_S, prune_slice
from model.history.row_codec import candle_of, newest_ranked
from model.history.rows import Rows
from model.history.statements import (
    COUNT_OFF_GRID,
    NEWEST_CANDLE,
    NEWEST_FORECAST,
    REPLACE_CALIBRATION,
    SELECT_CANDLES,
    SELECT_FORECASTS,
    SELECT_NEWEST_STATES,
    SELECT_OUTCOMES,
)

_DAY_MS: Final = 86_400_000

SavedCalibration = tuple[int, dict[str, bytes]]
"""Time of the save (Unix milliseconds) and the states by symbol."""


class Outcome(NamedTuple):
    """A published forecast and the actual close; None until its candle is closed."""

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
        self._id_table = IdTable(self._db)
        self._inserter = Inserter(self._db, self._id_table)

    def close(self) -> None:
        """Close the file; this also removes the write-ahead log."""
        self._db.close()

    def add(self, market: MarketKey, rows: Rows) -> None:
        """Append rows in one transaction; repeated ones are skipped.

        A candle that differs from the stored one is a revision and is kept beside it. A forecast
        is published once: an existing one is not changed.

        Args:
            market: of all the rows.
            rows: what has closed and what was published.

        Raises:
            HistoryError: nothing was written.
            ValueError: a candle is still forming; nothing was written.
        """
        with self._writing():
            self._inserter.insert(market, rows)

    def add_candles(self, market: MarketKey, candles: Sequence[Candle]) -> None:
        """Append candles only, as `add` does."""
        self.add(market, Rows(candles))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Apply all changes of the block or none."""
        try:
            with transaction(self._db, self._path):
                yield
        except BaseException:
            self._id_table.symbol_ids.clear()
            raise

    def candles(
        self,
        market: MarketKey,
        symbol: str,
        limit: int,
        newest_ms: int | None = None,
    ) -> list[Candle]:
        """Read the valid revision of each candle among ``limit`` consecutive openings.

        That is the newest one of the highest `Candle.rank`. Impossible candles, which earlier
        versions could store, are skipped. ``received_s`` is 0.0: the monotonic clock of the process
        that received them no longer exists.

        Args:
            market: exchange and timeframe.
            symbol: ccxt symbol.
            limit: openings of the span; candles off that grid are skipped.
            newest_ms: the last opening of the span, Unix milliseconds. None: that of the market's
                newest candle of any symbol; a symbol without recent candles returns fewer.

        Returns:
            Ascending by opening time, possibly with gaps.

        Raises:
            HistoryError: the file cannot be read.
        """
        step_s = market.timeframe.ms // 1000
        with errors(self._path):
            market_id = self._id_table.find_market(market)
            newest_s = (
                one(self._db, NEWEST_CANDLE, market_id) if newest_ms is None else newest_ms // 1000
            )
            if newest_s is None:
                return []
            where = self._span(market_id, symbol, newest_s, step_s, limit)
            rows = self._db.execute(SELECT_CANDLES, where)
            return newest_ranked(candle_of(symbol, step_s * 1000, row) for row in rows)

    def count_off_grid(self, market: MarketKey, since_ms: int) -> int:
        """Count the rows of candles off the grid since a time (Unix milliseconds).

        Raises:
            HistoryError: the file cannot be read.
        """
        with errors(self._path):
            market_id = self._id_table.find_market(market)
            grid_s = market.timeframe.origin_ms // 1000, market.timeframe.ms // 1000
            return one(self._db, COUNT_OFF_GRID, market_id, since_ms // 1000, *grid_s) or 0

    def _span(
        self, market_id: int | None, symbol: str, newest_s: int, step_s: int, limit: int
    ) -> dict[str, Any]:
        """Parameters for a symbol's rows among the market's last ``limit`` candles."""
        return {
            "market": market_id,
            "symbol": self._id_table.find_symbol(symbol),
            "newest_s": newest_s,
            "oldest_s": newest_s - step_s * (limit - 1),
            "step_s": step_s,
        }

    def forecasts(self, market: MarketKey, symbol: str, limit: int) -> list[ForecastRow]:
        """Read one symbol's forecasts among the market's last ``limit`` candles.

        Returns:
            Ascending by time, possibly with gaps.

        Raises:
            HistoryError: the file cannot be read.
        """
        step_s = market.timeframe.ms // 1000
        with errors(self._path):
            market_id = self._id_table.find_market(market)
            newest_s = one(self._db, NEWEST_FORECAST, market_id)
            if newest_s is None:
                return []
            where = self._span(market_id, symbol, newest_s, step_s, limit)
            return [
                ForecastRow(symbol, close_s * 1000, (close_s + step_s) * 1000, *rest)
                for close_s, *rest in self._db.execute(SELECT_FORECASTS, where)
            ]

    def outcomes(self, market: MarketKey, limit: int) -> Iterator[Outcome]:
        """Read the forecasts of the market's last ``limit`` candles with the actual closes.

        The close is that of the first final revision, which forecasts are scored with.

        Yields:
            Ascending by time.

        Raises:
            HistoryError: the file cannot be read.
        """
        step_s = market.timeframe.ms // 1000
        with errors(self._path):
            market_id = self._id_table.find_market(market)
            newest_s = one(self._db, NEWEST_FORECAST, market_id)
            if newest_s is None:
                return
            after_s = newest_s - step_s * limit
            for name, close_s, *rest, close in self._db.execute(
                SELECT_OUTCOMES, (market_id, after_s)
            ):
                row = ForecastRow(name, close_s * 1000, (close_s + step_s) * 1000, *rest)
                yield Outcome(row, close)

    def save_calibration(self, market: MarketKey, model: ModelKey, saved: SavedCalibration) -> None:
        """Replace the model's calibration states of that day, in one transaction.

        Args:
            market: exchange (ccxt id) and timeframe.
            model: version and SHA-256.
            saved: wall clock (Unix milliseconds) and states by symbol.

        Raises:
            HistoryError: nothing was written.
        """
        saved_ms, states = saved
        saved_s = saved_ms // 1000
        with self._writing():
            ids = self._id_table.market_id(market), self._id_table.model_id(model)
            symbol_ids = self._id_table.symbol_ids
            self._db.executemany(
                REPLACE_CALIBRATION,
                (
                    (*ids, symbol_ids[symbol], saved_s // DAY_S, saved_s, state)
                    for symbol, state in states.items()
                ),
            )

    def calibration(self, market: MarketKey, sha256: str) -> dict[str, bytes]:
        """Read the newest calibration states of a model by symbol; empty if none were saved.

        Raises:
            HistoryError: the file cannot be read.
        """
        return self._newest(
            SELECT_NEWEST_STATES.format(table="calibration", when="day"), market, sha256
        )

    def scalers(self, market: MarketKey, sha256: str) -> dict[str, bytes]:
        """Read the newest scalers that were fitted while a model was served, by symbol.

        Raises:
            HistoryError: the file cannot be read.
        """
        return self._newest(
            SELECT_NEWEST_STATES.format(table="scaler", when="fitted_ms"), market, sha256
        )

    def _newest(self, statement: str, market: MarketKey, sha256: str) -> dict[str, bytes]:
        with errors(self._path):
            where = self._id_table.find_market(market), self._id_table.find_model(sha256)
            return dict(self._db.execute(statement, where))

    def prune(self, keep_days: float, now_ms: int, max_rows: int = 10_000) -> int:
        """Delete one slice of rows older than ``keep_days``; call again until it returns 0.

        The file does not shrink; freed pages are used again.

        Args:
            keep_days: days to keep, by opening time.
            now_ms: Unix milliseconds.
            max_rows: rows per table and market in one slice; the symbols of one candle may
                exceed it.

        Returns:
            Rows deleted.

        Raises:
            HistoryError: nothing was deleted.
        """
        before_s = int(now_ms - keep_days * _DAY_MS) // 1000
        with self._writing():
            return prune_slice(self._db, before_s, max_rows)
