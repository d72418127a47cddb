"""Read candles, published forecasts and calibration states back from the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from model.core.candle import Candle
from model.core.errors import HistoryError
from model.core.market import MarketKey
from model.forecasts.rules import Rules
from model.history.database import errors, open_database
from model.history.ids import IdTable
from model.history.row_codec import candle_of, newest_ranked, share_of
from model.history.statements import (
    SELECT_FORECAST_GROUPS,
    SELECT_PUBLISHED,
    SELECT_REVISIONS,
    SELECT_SCALERS,
    SELECT_STATES,
)

SavedStates = list[tuple[int, bytes]]
"""Time of each save (Unix milliseconds) and the encoded state; ascending."""


class ForecastGroup(NamedTuple):
    """The forecasts of one symbol by one model.

    Attributes:
        symbol: ccxt symbol.
        version: of the model.
        sha256: of its manifest.
        first_ms: closing of the newest candle of its first forecast, Unix milliseconds.
        last_ms: of its last one.
        forecasts: their number.
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
        published_ms: wall clock when it was ready to publish.
        last_close: close of that candle.
        predicted_close: forecast of the next close.
        lower: of the interval; None where there was none.
        upper: likewise.
        threshold: a return, of the probabilities; None where there were none.
        short: probability of a return below -threshold, to a billionth.
        long: of one above.
        out_of_range: share of scaled values outside what the scaler was fitted on.
        learnt: number of forecasts that the calibration had learnt from; None in rows of
            schemas before 3.
        rules: settings of interval and probabilities; None likewise.
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
    """Read the history of one market; used by one thread.

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
        self._id_table = IdTable(self._db)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def revisions(self, symbol: str, from_ms: int, until_ms: int) -> list[Candle]:
        """Read every revision of the candles that opened from ``from_ms`` to before ``until_ms``.

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
                "market": self._id_table.find_market(self._market),
                "symbol": self._id_table.find_symbol(symbol),
                "from_s": from_ms // 1000,
                "until_s": until_ms // 1000,
                "step_s": self._step_ms // 1000,
            }
            return [
                candle_of(symbol, self._step_ms, r)
                for r in self._db.execute(SELECT_REVISIONS, where)
            ]

    def forecast_groups(self, from_ms: int, until_ms: int) -> list[ForecastGroup]:
        """List symbols and models with forecasts from ``from_ms`` to before ``until_ms``.

        The times are those at which the newest candle of a forecast closed, Unix milliseconds.

        Returns:
            Ascending by symbol, then by model.

        Raises:
            HistoryError: the file cannot be read.
        """
        with errors(self._path):
            span = -(-from_ms // 1000), -(-until_ms // 1000)
            market = self._id_table.find_market(self._market)
            return [
                ForecastGroup(name, version, sha256, first_s * 1000, last_s * 1000, count)
                for name, version, sha256, first_s, last_s, count in self._db.execute(
                    SELECT_FORECAST_GROUPS, (market, *span)
                )
            ]

    def published(self, group: ForecastGroup, from_ms: int) -> list[Published]:
        """Read the forecasts of a group from ``from_ms`` to its last one.

        Args:
            group: model, symbol and the end.
            from_ms: closing of a candle, Unix milliseconds.

        Returns:
            Ascending by time.

        Raises:
            HistoryError: the file cannot be read.
        """
        step_s = self._step_ms // 1000
        grid = {
            "from_s": from_ms // 1000,
            "until_s": group.last_ms // 1000 + step_s,
            "step_s": step_s,
        }
        with errors(self._path):
            rows = self._db.execute(SELECT_PUBLISHED, self._ids(group) | grid)
            return [_published(group.symbol, row) for row in rows]

    def states(self, group: ForecastGroup) -> SavedStates:
        """Read the last calibration state of every day for a group.

        Raises:
            HistoryError: the file cannot be read.
        """
        with errors(self._path):
            return self._db.execute(SELECT_STATES, self._ids(group)).fetchall()

    def scalers(self, group: ForecastGroup) -> SavedStates:
        """Read the scalers of a group that were fitted while the model was served.

        Raises:
            HistoryError: the file cannot be read.
        """
        with errors(self._path):
            return self._db.execute(SELECT_SCALERS, self._ids(group)).fetchall()

    def _ids(self, group: ForecastGroup) -> dict[str, int | None]:
        return {
            "market": self._id_table.find_market(self._market),
            "model": self._id_table.find_model(group.sha256),
            "symbol": self._id_table.find_symbol(group.symbol),
        }


def _published(symbol: str, row: tuple[Any, ...]) -> Published:
    close_s, delay_ms, last, predicted, lower, upper, threshold, *shares, learnt, level = row[:12]
    close_ms = close_s * 1000
    rules = None if level is None else Rules(level, *row[12:])
    columns = (threshold, *map(share_of, shares), learnt, rules)
    return Published(symbol, close_ms, close_ms + delay_ms, last, predicted, lower, upper, *columns)


def candles_as_of(revisions: list[Candle], as_of_ms: int | None = None) -> list[Candle]:
    """Return the valid revision of each candle among those received by ``as_of_ms``.

    A filled or repaired candle never replaces one with the exchange's own values.

    Args:
        revisions: ascending by opening time, then by receipt.
        as_of_ms: Unix milliseconds; None: all.
    """
    return newest_ranked(
        candle for candle in revisions if as_of_ms is None or candle.received_ms <= as_of_ms
    )
