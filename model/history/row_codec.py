"""Convert candles and forecasts to rows of the history and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from model.core.candle import Candle, FinalBy, Ohlcv, is_possible
from model.forecasts.forecast import Forecast

_FINAL_BY: Final[tuple[FinalBy, ...]] = ("exchange_flag", "successor", "rest")
"""The column holds the place in this tuple: SQLite needs no byte for the most frequent, 0."""

_FILLED: Final = 1
_REPAIRED: Final = 2
"""Bits of the column ``filled``."""

_BILLION: Final = 1_000_000_000


def candle_row(market: int, symbol: int, candle: Candle) -> tuple[object, ...]:
    """A closed candle as a row of ``candle``.

    Raises:
        ValueError: it is still forming.
    """
    if candle.final_by is None:
        msg = f"a forming candle of {candle.symbol} is not history"
        raise ValueError(msg)
    return (
        market,
        candle.open_ms // 1000,
        symbol,
        candle.received_ms - candle.close_ms,
        *candle.ohlcv,
        _FINAL_BY.index(candle.final_by),
        _FILLED * candle.filled + _REPAIRED * candle.repaired,
    )


def candle_of(symbol: str, step_ms: int, row: tuple[Any, ...]) -> Candle:
    """A row `open_s, delay_ms, open … volume, final_by, filled` as a candle.

    Raises:
        sqlite3.DatabaseError: nobody wrote it like this.
    """
    open_s, delay_ms, *ohlcv, final_by, flags = row
    if not 0 <= final_by < len(_FINAL_BY):
        msg = f"a candle of {symbol} became final in no known way"
        raise sqlite3.DatabaseError(msg)
    open_ms = open_s * 1000
    close_ms = open_ms + step_ms
    return Candle(
        symbol,
        open_ms,
        close_ms,
        Ohlcv(*ohlcv),
        received_ms=close_ms + delay_ms,
        received_s=0.0,
        final_by=_FINAL_BY[final_by],
        filled=bool(flags & _FILLED),
        repaired=bool(flags & _REPAIRED),
    )


def newest_ranked(revisions: Iterable[Candle]) -> list[Candle]:
    """Of each candle the revision that counts: the newest of the highest rank, if it can be true.

    Args:
        revisions: of one symbol, ascending by opening time, then by receipt.
    """
    newest: dict[int, Candle] = {}
    for candle in revisions:
        before = newest.get(candle.open_ms)
        if is_possible(candle.ohlcv) and (before is None or candle.rank >= before.rank):
            newest[candle.open_ms] = candle
    return list(newest.values())


def forecast_row(
    market: int, model: int, rules: int, symbol: int, forecast: Forecast
) -> tuple[object, ...]:
    """A published forecast as a row of ``forecast``."""
    interval, chances = forecast.interval, forecast.probabilities
    return (
        market,
        forecast.candle_close_ms // 1000,
        symbol,
        forecast.published_ms - forecast.candle_close_ms,
        forecast.last_close,
        forecast.predicted_close,
        None if interval is None else interval.lower,
        None if interval is None else interval.upper,
        model,
        forecast.late,
        forecast.basis.learnt,
        rules,
        None if chances is None else chances.threshold,
        None if chances is None else round(chances.short * _BILLION),
        None if chances is None else round(chances.long * _BILLION),
        round(forecast.window.out_of_range * _BILLION),
    )


def share_of(ppb: int | None) -> float | None:
    """Parts per billion as a share."""
    return None if ppb is None else ppb / _BILLION
