"""Hold the newest forecast of each symbol, and make it by itself when it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from model.forecasts.forecast import Forecast

if TYPE_CHECKING:
    from model.forecasts.batch import ForecastBatch


class NewestForecasts(Mapping[str, Forecast]):
    """The newest forecast of each symbol.

    Few are ever asked for, and to make one costs more than to publish it.
    """

    def __init__(self) -> None:
        """Start without forecasts."""
        # By symbol: where a forecast is found, or itself once it was asked for.
        self._found: dict[str, tuple[ForecastBatch, int] | Forecast] = {}

    def add(self, forecasts: ForecastBatch) -> None:
        """Replace those of these symbols."""
        self._found.update(
            (candle.symbol, (forecasts, row)) for row, candle in enumerate(forecasts.candles)
        )

    def keep_only(self, symbols: Collection[str]) -> None:
        """Forget those of all other symbols."""
        for symbol in self._found.keys() - set(symbols):
            del self._found[symbol]

    def __getitem__(self, symbol: str) -> Forecast:
        """The forecast, the same object each time.

        Raises:
            KeyError: there is none.
        """
        found = self._found[symbol]
        if not isinstance(found, Forecast):
            batch, row = found
            found = self._found[symbol] = batch.forecast(row)
        return found

    def __contains__(self, symbol: object) -> bool:
        """Whether there is one; makes none."""
        return symbol in self._found

    def __iter__(self) -> Iterator[str]:
        """The symbols."""
        return iter(self._found)

    def __len__(self) -> int:
        """How many symbols have one."""
        return len(self._found)
