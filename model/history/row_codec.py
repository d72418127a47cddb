"""Convert candles and forecasts to rows of the history and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.core.candle import Candle, FinalBy, Ohlcv, is_possible
from model.forecasts.batch import Columns, ForecastBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FINAL_BY: Final[tuple[FinalBy, ...]] = ("exchange_flag", "successor", "rest")
"""The column holds the position in this tuple; SQLite stores 0, the most frequent, in no byte."""

_FILLED: Final = 1
_REPAIRED: Final = 2
"""Bits of the column ``filled``."""

_BILLION: Final = 1_000_000_000

CandleRow = tuple[int, int, int, *tuple[object, ...]]
"""Market, opening (Unix seconds) and symbol, then the other columns of the table ``candle``."""


def candle_row(market: int, symbol: int, candle: Candle) -> CandleRow:
    """Encode a closed candle as a row of the table ``candle``.

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
    """Decode a row `open_s, delay_ms, open … volume, final_by, filled`.

    Raises:
        sqlite3.DatabaseError: the row is damaged.
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
    """Return the valid revision of each candle: the newest possible one of the highest rank.

    Args:
        revisions: of one symbol, ascending by opening time, then by receipt.
    """
    newest: dict[int, Candle] = {}
    for candle in revisions:
        before = newest.get(candle.open_ms)
        if is_possible(candle.ohlcv) and (before is None or candle.rank >= before.rank):
            newest[candle.open_ms] = candle
    return list(newest.values())


def forecast_rows(
    ids: tuple[int, int], models: Sequence[int], symbols: Sequence[int], forecasts: ForecastBatch
) -> Iterator[tuple[object, ...]]:
    """Encode published forecasts as rows of the table ``forecast``.

    Args:
        ids: of their market and rules.
        models: the id of each one's model.
        symbols: the id of each one's symbol.
        forecasts: in the same order.
    """
    market, rules = ids
    numbers: Columns[NDArray[np.float64]] = Columns._make(forecasts.numbers.T)
    known, published_ms = forecasts.known, forecasts.common.published_ms
    return zip(
        repeat(market),
        [candle.close_ms // 1000 for candle in forecasts.candles],
        symbols,
        [published_ms - candle.close_ms for candle in forecasts.candles],
        numbers.last_close.tolist(),
        numbers.predicted_close.tolist(),
        _where(known, numbers.lower.tolist()),
        _where(known, numbers.upper.tolist()),
        models,
        forecasts.late,
        forecasts.learnt,
        repeat(rules),
        _where(known, numbers.threshold.tolist()),
        _where(known, _billionths(numbers.short)),
        _where(known, _billionths(numbers.long)),
        _billionths(numbers.out_of_range),
    )


def _where(known: Sequence[bool], values: Sequence[float]) -> Sequence[float | None]:
    """Replace the values of forecasts without evidence by None."""
    return values if all(known) else [v if k else None for v, k in zip(values, known, strict=True)]


def _billionths(shares: NDArray[np.float64]) -> list[int]:
    """Round shares to billionths, halves to even as `round` does."""
    billionths: list[int] = np.rint(shares * _BILLION).astype(np.int64).tolist()
    return billionths


def share_of(ppb: int | None) -> float | None:
    """Convert parts per billion to a share."""
    return None if ppb is None else ppb / _BILLION
