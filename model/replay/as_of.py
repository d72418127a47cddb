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

_MAX_FORECASTS: Final = 10_000
"""Forecasts whose candles are in memory at a time."""


class ForecastInputs(NamedTuple):
    """A forecast and the candles that it was published from, ``open, high, low, close, volume``.

    Attributes:
        forecast: as it was published.
        window: its candles, ``[capacity, 5]``; None where history lacks one.
        followed: first revision of the forecast candle, ``[5]``; None likewise.
    """

    forecast: Published
    window: Floats | None
    followed: Floats | None


def forecast_inputs(
    reader: HistoryReader, published: Sequence[Published], capacity: int, step_ms: int
) -> Iterator[ForecastInputs]:
    """Yield the inputs of forecasts of one symbol as they were at publication.

    Args:
        reader: of the history.
        published: the forecasts, ascending.
        capacity: candles in a window.
        step_ms: length of a candle.
    """
    start = 0
    for at, (one, following) in enumerate(pairwise(published), 1):
        apart = (following.candle_close_ms - one.candle_close_ms) // step_ms
        if apart > capacity or at - start == _MAX_FORECASTS:
            yield from _windows(reader, published[start:at], capacity, step_ms)
            start = at
    yield from _windows(reader, published[start:], capacity, step_ms)


def _windows(
    reader: HistoryReader, published: Sequence[Published], capacity: int, step_ms: int
) -> Iterator[ForecastInputs]:
    if not published:
        return
    first_ms, end_ms = (
        published[0].candle_close_ms - capacity * step_ms,
        published[-1].candle_close_ms,
    )
    rows = (end_ms - first_ms) // step_ms
    known, ranks = np.full((rows + 1, 5), np.nan), np.zeros(rows + 1, dtype=np.uint8)
    revisions = reader.revisions(published[0].symbol, first_ms, end_ms + step_ms)
    # Reversed, so that the first revision of each candle is the last one entered.
    firsts = {candle.open_ms: np.array(candle.ohlcv) for candle in reversed(revisions)}
    by_receipt = iter(sorted(revisions, key=lambda candle: candle.received_ms))
    candle = next(by_receipt, None)
    for forecast in published:
        while candle is not None and candle.received_ms <= forecast.published_ms:
            _apply_revision(candle, (candle.open_ms - first_ms) // step_ms, known, ranks)
            candle = next(by_receipt, None)
        end = (forecast.candle_close_ms - first_ms) // step_ms
        window = known[end - capacity : end].copy()
        whole = None if np.isnan(window).any() else window
        yield ForecastInputs(forecast, whole, firsts.get(forecast.candle_close_ms))


def _apply_revision(candle: Candle, row: int, known: Floats, ranks: NDArray[np.uint8]) -> None:
    # A filled or repaired candle does not replace one with the exchange's own values.
    if candle.rank >= ranks[row]:
        known[row], ranks[row] = candle.ohlcv, candle.rank
