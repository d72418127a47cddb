"""Define the key of a market: an exchange and a timeframe."""

from __future__ import annotations

from typing import NamedTuple, Self

from model.core.candle import Timeframe


class MarketKey(NamedTuple):
    """Identify the candles of one exchange at one timeframe.

    The symbol is not part of the key: it is a field of every candle and forecast, and a running
    daemon can change its symbols but not its market.

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
