"""What a challenger and the champion have forecast of the same candle, until the candle answers.

Pure. Bounded: one forecast a symbol.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from daemon.scoring.accuracy import MAX_ERROR
from model.shared_state.live_trial import RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.control.standby import Taken
    from model.forecasts.forecast import ForecastRow
    from model.shared_state.live_trial import Records


class _Pair(NamedTuple):
    """Prices of both forecasts of the candle that opened at ``open_ms``."""

    open_ms: int
    last: float
    challenger: float
    champion: float


class PairedForecasts:
    """Pairs forecasts and scores them relative to the last close, as the accuracy metrics do.

    Args:
        symbols: ccxt symbols; their order is the slot.
        numbers: of the symbols, in the records.
        timeframe_ms: length of a candle.
        champion: its forecast, by symbol and the close of the newest candle that it saw.
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
        self._waiting: list[_Pair | None] = [None] * len(symbols)
        self._records: list[tuple[int, int, float, float, float]] = []

    def note(self, slot: int, open_ms: int, last: float, challenger: float, now_ms: int) -> None:
        """Take in a challenger's forecast.

        Left out: one that comes after its candle, one that is no price, and one without the
        champion's of the same candle from the same close.

        Args:
            slot: of the symbol.
            open_ms: opening of the candle that is forecast, Unix milliseconds.
            last: the close before.
            challenger: the price.
            now_ms: the exchange's time.
        """
        row = self._champion(self._symbols[slot], open_ms)
        late = now_ms >= open_ms + self._timeframe_ms
        if row is None or row.last_close != last or late:
            return
        if isfinite(challenger) and challenger > 0.0:
            self._waiting[slot] = _Pair(open_ms, last, challenger, row.predicted_close)

    def answer(self, taken: Taken) -> None:
        """Score what waited for these candles; what none of them answers is given up."""
        for slot, end_ms, ohlcv in zip(*(part.tolist() for part in taken), strict=True):
            pair, self._waiting[slot] = self._waiting[slot], None
            back = 0 if pair is None else (end_ms - pair.open_ms) // self._timeframe_ms
            if pair is None or not 1 <= back <= len(ohlcv):
                continue
            close = ohlcv[-back][3]
            prices = (pair.last, pair.challenger, pair.champion)
            losses = tuple(min(abs(price - close) / pair.last, MAX_ERROR) for price in prices)
            self._records.append((self._numbers[slot], pair.open_ms, *losses))

    def take_records(self) -> Records:
        """What has been scored since the last call."""
        taken, self._records = self._records, []
        return np.array(taken, dtype=RECORD)
