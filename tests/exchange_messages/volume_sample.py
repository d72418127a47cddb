"""One candle as an exchange streams it and as its history holds it: numbers and shapes.

The numbers are invented. Volume is 12.5 in base currency, 131.25 in quote currency and 125
contracts, so that a field of another unit shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

OPEN_MS = 1_790_000_040_000
OPEN_S = OPEN_MS // 1_000
END_MS = OPEN_MS + 60_000
AT = "2026-09-21T14:14:00"
O, H, L, C = "10.4", "10.8", "10.2", "10.6"  # noqa: E741 - as exchanges call them
BASE, QUOTE, CONTRACTS = "12.5", "131.25", "125"
HIGHS = {"open": O, "high": H, "low": L, "close": C}
SHORT = {"o": O, "h": H, "l": L, "c": C}


class Sample(NamedTuple):
    """A candle of one market by both ways.

    Attributes:
        stream: message of the websocket.
        answer: body of the REST answer.
        market_id: the exchange's name of the market.
        url: address of the websocket.
        market: further fields of the ccxt market.
        subscriptions: what ccxt's client remembers of the subscription.
    """

    stream: Any
    answer: Any
    market_id: str = "BTCUSDT"
    url: str = "wss://127.0.0.1/ws"
    market: Mapping[str, Any] = {}
    subscriptions: Mapping[str, Any] = {}


def row(volume: str, *more: Any, at: Any = OPEN_MS) -> list[Any]:
    """Time, open, high, low, close and what follows."""
    return [at, O, H, L, C, volume, *more]


def open_close(volume: str, *more: Any, at: Any = OPEN_S) -> list[Any]:
    """Time, open, close, high, low and what follows."""
    return [at, O, C, H, L, volume, *more]
