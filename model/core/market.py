"""Define the key of a market: an exchange and a timeframe."""

from __future__ import annotations

from typing import NamedTuple, Self

from model.core.candle import Timeframe


class MarketKey(NamedTuple):
    """Identify the candles of one exchange at one timeframe.

    Candles and forecasts of a market are told apart by their symbol, which is a field of theirs:
    the symbols of a daemon change while it runs, its market does not.

    Attributes:
        exchange: ccxt exchange id.
        timeframe: the grid; stored files hold only its ccxt name (`Timeframe.text`).
    """

    exchange: str
    timeframe: Timeframe

    @classmethod
    def parse(cls, exchange: str, timeframe: str) -> Self:
        """Build the key from ccxt names.

        Raises:
            ConfigError: not a timeframe, or one without a fixed duration.
        """
        return cls(exchange, Timeframe.parse(timeframe))
