"""Pair forecasts of challenger and champion for the same candle, and score them when it closes.

Pure. Bounded: one pair of forecasts a symbol.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from daemon.scoring.accuracy import MOST_ERROR
from model.shared_state.live_trial import RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.control.standby import AppliedCandles
    from model.forecasts.forecast import ForecastRow
    from model.shared_state.live_trial import Records


class _Pair(NamedTuple):
    """Prices that both models forecast for the candle that opens at ``open_ms``."""

    open_ms: int
    last: float
    challenger: float
    champion: float


class PairedForecasts:
    """Pairs forecasts and scores them relative to the last close, as the accuracy metrics do.

    Args:
        symbols: ccxt symbols; their order is the slot.
        numbers: of the symbols, as the records name them.
        timeframe_ms: length of a candle.
        champion: returns the champion's forecast, by symbol and opening of the candle.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        numbers: Sequence[int],
        timeframe_ms: int,
        champion: Callable[[str, int], ForecastRow | None],
    ) -> None:
        self._symbols = symbols
        self._numbers = numbers
        self._timeframe_ms = timeframe_ms
        self._champion = champion
        # By slot: the pair whose candle has not closed.
        self._waiting: list[_Pair | None] = [None] * len(symbols)
        # Scored, not yet taken: number, opening, losses of last value, challenger and champion.
        self._records: list[tuple[int, int, float, float, float]] = []

    def add_challenger(
        self, slot: int, open_ms: int, last: float, challenger: float, now_ms: int
    ) -> None:
        """Add a challenger's forecast.

        It is ignored if its candle has closed, if it is no price, or if the champion has made no
        forecast for the same candle from the same close.

        Args:
            slot: of the symbol.
            open_ms: opening of the candle that is forecast, Unix milliseconds.
            last: the close before it.
            challenger: the price that is forecast.
            now_ms: the exchange's time.
        """
        row = self._champion(self._symbols[slot], open_ms)
        has_closed = now_ms >= open_ms + self._timeframe_ms
        if row is None or row.last_close != last or has_closed:
            return
        if isfinite(challenger) and challenger > 0.0:
            self._waiting[slot] = _Pair(open_ms, last, challenger, row.predicted_close)

    def on_candles(self, applied: AppliedCandles) -> None:
        """Score the pairs that these candles decide; drop those whose candle is not among them."""
        for slot, end_ms, ohlcv in zip(*(part.tolist() for part in applied), strict=True):
            pair, self._waiting[slot] = self._waiting[slot], None
            back = 0 if pair is None else (end_ms - pair.open_ms) // self._timeframe_ms
            if pair is None or not 1 <= back <= len(ohlcv):
                continue
            close = ohlcv[-back][3]
            prices = (pair.last, pair.challenger, pair.champion)
            losses = tuple(min(abs(price - close) / pair.last, MOST_ERROR) for price in prices)
            self._records.append((self._numbers[slot], pair.open_ms, *losses))

    def take_records(self) -> Records:
        """Return what has been scored since the last call."""
        records, self._records = self._records, []
        return np.array(records, dtype=RECORD)
