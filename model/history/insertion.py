"""Insert candles, scalers and forecasts into the tables of the history."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from model.core.candle import Candle
from model.core.market import MarketKey
from model.forecasts.batch import ForecastBatch
from model.history.ids import IdTable
from model.history.newest_openings import NewestOpenings
from model.history.row_codec import candle_row, forecast_rows
from model.history.rows import FittedScaler, Rows
from model.history.statements import (
    INSERT_CANDLE,
    INSERT_FORECAST,
    INSERT_REVISION,
    REPLACE_SCALER,
)


class Inserter:
    """Inserts rows; call it within a transaction.

    Args:
        database: of the history.
        id_table: of the same database.
    """

    def __init__(self, database: sqlite3.Connection, id_table: IdTable) -> None:
        self._db = database
        self._id_table = id_table
        self._newest_openings = NewestOpenings(database)

    def insert(self, market: MarketKey, rows: Rows) -> None:
        """Insert rows of one market; those that are stored already are skipped.

        Raises:
            ValueError: a candle is still forming.
        """
        market_id = self._id_table.market_id(market)
        self._insert_candles(market_id, rows.candles)
        for scaler in rows.scalers:
            self._insert_scaler(market_id, scaler)
        for forecasts in rows.forecasts:
            self._insert_forecasts(market_id, forecasts)

    def _insert_candles(self, market_id: int, candles: Sequence[Candle]) -> None:
        symbol_ids = self._id_table.symbol_ids
        encoded = (candle_row(market_id, symbol_ids[c.symbol], c) for c in candles)
        first, others = self._newest_openings.separate(market_id, encoded)
        self._db.executemany(INSERT_CANDLE, first)
        self._db.executemany(INSERT_REVISION, others)

    def _insert_scaler(self, market_id: int, scaler: FittedScaler) -> None:
        model_id = self._id_table.model_id(scaler.model)
        symbol_id = self._id_table.symbol_ids[scaler.symbol]
        row = market_id, model_id, symbol_id, scaler.fitted_ms, scaler.state
        self._db.execute(REPLACE_SCALER, row)

    def _insert_forecasts(self, market_id: int, forecasts: ForecastBatch) -> None:
        symbol_ids = self._id_table.symbol_ids
        models = [(model.version, model.sha256) for model in forecasts.models]
        model_ids = {model: self._id_table.model_id(model) for model in set(models)}
        rows = forecast_rows(
            (market_id, self._id_table.rules_id(forecasts.common.rules)),
            [model_ids[model] for model in models],
            [symbol_ids[candle.symbol] for candle in forecasts.candles],
            forecasts,
        )
        self._db.executemany(INSERT_FORECAST, rows)
