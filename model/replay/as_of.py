"""Reconstruct the candles behind each forecast as they were known when it was published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.core.candle import Candle
    from model.history.reader import HistoryReader, Published

    Floats = NDArray[np.float64]

_MOST_IN_MEMORY: Final = 10_000
"""Forecasts whose candles are held at a time."""


class Known(NamedTuple):
    """A forecast and its candles, ``open, high, low, close, volume``.

    Attributes:
        forecast: as it was published.
        window: what it was made from, ``[capacity, 5]``; None where history lacks a candle.
        followed: the candle that was forecast, as it was first known, ``[5]``; None likewise.
    """

    forecast: Published
    window: Floats | None
    followed: Floats | None


def as_known(
    archive: HistoryReader, made: Sequence[Published], capacity: int, step_ms: int
) -> Iterator[Known]:
    """What was known when forecasts of one symbol were published.

    Args:
        archive: has the candles.
        made: ascending.
        capacity: candles in a window.
        step_ms: length of a candle.
    """
    start = 0
    for at, (one, following) in enumerate(pairwise(made), 1):
        apart = (following.candle_close_ms - one.candle_close_ms) // step_ms
        if apart > capacity or at - start == _MOST_IN_MEMORY:
            yield from _windows(archive, made[start:at], capacity, step_ms)
            start = at
    yield from _windows(archive, made[start:], capacity, step_ms)


def _windows(
    archive: HistoryReader, made: Sequence[Published], capacity: int, step_ms: int
) -> Iterator[Known]:
    if not made:
        return
    first_ms, end_ms = made[0].candle_close_ms - capacity * step_ms, made[-1].candle_close_ms
    rows = (end_ms - first_ms) // step_ms
    known, ranks = np.full((rows + 1, 5), np.nan), np.zeros(rows + 1, dtype=np.uint8)
    revisions = archive.revisions(made[0].symbol, first_ms, end_ms + step_ms)
    # Ascending by receipt, so the last one to be entered is the first that came.
    firsts = {candle.open_ms: np.array(candle.ohlcv) for candle in reversed(revisions)}
    coming = iter(sorted(revisions, key=lambda candle: candle.received_ms))
    candle = next(coming, None)
    for forecast in made:
        while candle is not None and candle.received_ms <= forecast.published_ms:
            _take(candle, (candle.open_ms - first_ms) // step_ms, known, ranks)
            candle = next(coming, None)
        end = (forecast.candle_close_ms - first_ms) // step_ms
        window = known[end - capacity : end].copy()
        whole = None if np.isnan(window).any() else window
        yield Known(forecast, whole, firsts.get(forecast.candle_close_ms))


def _take(candle: Candle, row: int, known: Floats, ranks: NDArray[np.uint8]) -> None:
    # What was concluded or put right does not replace what the exchange told.
    if candle.rank >= ranks[row]:
        known[row], ranks[row] = candle.ohlcv, candle.rank
