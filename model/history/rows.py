"""Define the rows that are added to the history in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from model.core.candle import Candle
from model.forecasts.batch import ForecastBatch
from model.history.ids import ModelKey


class FittedScaler(NamedTuple):
    """A scaler that was fitted while its model was served and is in no bundle.

    Attributes:
        model: version and SHA-256.
        symbol: ccxt symbol.
        fitted_ms: wall clock, Unix milliseconds; earlier than any forecast made with it.
        state: see `model.features.scaler.SymbolScaler.encode`.
    """

    model: ModelKey
    symbol: str
    fitted_ms: int
    state: bytes


class Rows(NamedTuple):
    """Rows of one market, each kind in the order in which it came.

    Attributes:
        candles: closed ones.
        scalers: of models that are served.
        forecasts: published ones, by column.
    """

    candles: Sequence[Candle] = ()
    scalers: Sequence[FittedScaler] = ()
    forecasts: Sequence[ForecastBatch] = ()

    @property
    def total(self) -> int:
        """Their number."""
        return len(self.candles) + len(self.scalers) + sum(map(len, self.forecasts))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Join rows of one market, in their order."""
        return cls(
            [candle for part in parts for candle in part.candles],
            [scaler for part in parts for scaler in part.scalers],
            [batch for part in parts for batch in part.forecasts],
        )
