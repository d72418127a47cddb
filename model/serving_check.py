"""Compare a model's forecasts with the last value before any of them is published.

A forecast is absurd when it lies further from the last close than `MOST_MOVES` times the mean
absolute move of a candle in the same window, and further than `LEAST`. A symbol fails when the
median over its newest `RECENT` windows is absurd or no price, so that one odd candle is not enough.

The bounds are wide on purpose: no model that was trained may fail, however the market behaves.
Measured on a month of minutes of five markets, as they are, in a fall by half within an hour, by
99.9 % within a day, with all moves 100 times smaller or 30 times larger, and in a halt, forecasts
of returns stayed within 0.03 % of the last close, and within 14 mean moves, where they moved. A
model of prices forecasts what it was trained on when the price has left its range. So its forecast
is no worse than any other as long as it lies among the prices that it knows, or within two widths
of their range beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from model.serving import ServedModel

    Floats = npt.NDArray[np.float64]
    Index = npt.NDArray[np.intp]

RECENT: Final = 32
"""Windows of each symbol that are checked."""

MOST_MOVES: Final = 50.0
"""Mean absolute moves of a candle that a forecast may be away from the last close."""

LEAST: Final = 0.02
"""Distance that is always allowed, of the natural logarithm of a price: 2 %. A market may have
stood still."""

_BESIDE: Final = 2.0
"""Widths of the range of prices that a model knows."""

_UNKNOWN_LEVEL: Final = float(np.log(2.0))
"""A model of prices that is shown no price can at best know roughly where they were."""


def doubtful(served: ServedModel, idx: Index, price: Floats, close: Floats) -> Index:
    """Which forecasts are absurd or no price.

    Args:
        served: the model.
        idx: positions of the symbols, shape ``(k,)``.
        price: their newest forecasts, ``(k,)``.
        close: closes of their windows, ``(k, rows)``, newest last.

    Returns:
        Positions in ``idx``; `faults` decides about them.
    """
    distance = _distance(served, idx, price[:, None], close[:, -1:])
    found: Index = np.flatnonzero(distance[:, 0] > _bound(served, close))
    return found


def faults(served: ServedModel, idx: Index, ohlcv: Floats) -> dict[int, str]:
    """What is wrong with a model's forecasts of symbols; safe in a worker thread.

    Symbols whose candles give no numbers for an input, and those that have no scaler yet, say
    nothing about the model.

    Args:
        served: the model.
        idx: positions of the symbols, shape ``(k,)``.
        ohlcv: their candles, shape ``(k, rows, 5)``, newest last.

    Returns:
        By position of the symbol the end of a sentence that begins with "its forecast".
    """
    at = np.flatnonzero(served.is_fitted(idx))
    # One window is quickly run, and finds nothing in almost every case.
    away = np.ones(len(at))
    for count in (1, RECENT):
        if not len(at):
            return {}
        away = _too_far(served, idx[at], ohlcv[at], count)
        at, away = at[away > 0.0], away[away > 0.0]
    moves = np.expm1(_mean_move(ohlcv[at, :, 3])).tolist()
    each = zip(idx[at].tolist(), away.tolist(), moves, strict=True)
    return {slot: _reason(distance, move) for slot, distance, move in each}


def summary(symbols: tuple[str, ...], found: Mapping[int, str], tried: int) -> str:
    """One sentence about the symbols that fail.

    Args:
        symbols: by position.
        found: what `faults` gave, at least one.
        tried: how many symbols were tried.
    """
    slot, reason = min(found.items())
    return (
        f"the forecasts of {len(found)} of {tried} symbols cannot be published: that of "
        f"{symbols[slot]} {reason}"
    )


def _too_far(served: ServedModel, idx: Index, ohlcv: Floats, count: int) -> Floats:
    """The median distance of each symbol's newest forecasts where it is too large; 0 elsewhere."""
    price, sound = served.recent_prices(idx, ohlcv, count)
    last = ohlcv[:, -price.shape[1] :, 3]
    middle = _median(np.where(sound, _distance(served, idx, price, last), np.nan))
    # A comparison with NaN is False.
    away: Floats = np.where(middle > _bound(served, ohlcv[:, :, 3]), middle, 0.0)
    return away


def _distance(served: ServedModel, idx: Index, price: Floats, last: Floats) -> Floats:
    """How far forecasts ``(k, n)`` are from what they start from; infinite if they are no price."""
    with np.errstate(all="ignore"):
        distance: Floats = np.abs(np.log(price) - np.log(last))
    distance[~((price > 0.0) & (price < np.inf))] = np.inf
    if served.target == "close" and (known := served.trained_closes(idx)) is not None:
        low, high = known
        beside = _BESIDE * (high - low)
        at_home = (price >= (low - beside)[:, None]) & (price <= (high + beside)[:, None])
        distance[at_home & (price > 0.0)] = 0.0
    return distance


def _bound(served: ServedModel, close: Floats) -> Floats:
    """How far a forecast may be from the last close, of closes ``(k, rows)``."""
    least = LEAST
    if served.target == "close" and served.trained_closes(np.zeros(0, np.intp)) is None:
        least = _UNKNOWN_LEVEL
    bound: Floats = np.maximum(MOST_MOVES * _mean_move(close), least)
    return bound


def _mean_move(close: Floats) -> Floats:
    with np.errstate(all="ignore"):
        moves: Floats = np.abs(np.diff(np.log(close), axis=1)).mean(axis=1)
    return moves


def _median(distance: Floats) -> Floats:
    """The median of each row without its NaN; NaN where there is nothing else."""
    middle = np.full(len(distance), np.nan)
    for row, values in enumerate(distance):
        known = values[~np.isnan(values)]
        if known.size:
            # Of two in the middle the nearer one: their mean may be infinite.
            middle[row] = np.sort(known)[(known.size - 1) // 2]
    return middle


def _reason(distance: float, move: float) -> str:
    if not np.isfinite(distance):
        return "is not a price"
    with np.errstate(over="ignore"):
        factor = np.exp(distance)
    return (
        f"is {factor:.3g} times away from the last close, and a candle moves it by {move:.2%} "
        "on average"
    )
