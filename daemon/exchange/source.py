"""Where candles come from, as plain values."""

from __future__ import annotations

from typing import Final, NamedTuple

from model.core.candle import Timeframe

_STREAMS: Final = {"binance": 200, "kucoin": 300, "mexc": 30, "bitget": 50}
"""Streams of one connection as exchanges allow or advise, by the beginning of their names."""

_FEW: Final = 100
"""Fewer than any other exchange is known to allow."""


class MarketSource(NamedTuple):
    """Where candles come from.

    Attributes:
        name: ccxt exchange id.
        endpoint_rest: replaces scheme, host and port of REST addresses; None keeps them.
        endpoint_ws: the same for websocket addresses.
        symbols: ccxt symbols.
        timeframe: the grid.
    """

    name: str
    endpoint_rest: str | None
    endpoint_ws: str | None
    symbols: tuple[str, ...]
    timeframe: Timeframe


def streams_per_connection(name: str) -> int:
    """How many symbols to watch on one connection of an exchange.

    Args:
        name: ccxt id; relatives of an exchange (binanceusdm) share its limit.
    """
    return next((most for known, most in _STREAMS.items() if name.startswith(known)), _FEW)
