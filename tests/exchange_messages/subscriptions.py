"""How ccxt subscribes at each exchange, and which timeframes it cannot subscribe to."""

from __future__ import annotations

TOGETHER = "one request"
EACH = "a request each"
APART = "a connection each"

_TOGETHER = {
    "apex", "aster", "backpack", "binance", "binancecoinm", "binanceus", "binanceusdm", "bitvavo",
    "blofin", "bybit", "bybiteu", "bybitid", "bydfi", "coinbaseinternational", "deribit", "grvt",
    "kraken", "myokx", "okx", "okxus", "toobit", "weex",
}  # fmt: skip
_APART = {"extended"}
_LACKING = {
    "bitget": "2h 3d",
    "modetrade": "4h 12h",
    "mudrex": "3m 5m 10m 15m 30m 1h 4h 6h 12h 1d 1w",
    "p2b": "1m",
    "polymarket": "1s",
    "upbit": "1m 3m 5m 10m 15m 30m 1h 4h 1d 1w",
    "whitebit": "3m 2h 6h 12h 3d",
    "woo": "4h 12h",
    "woofipro": "4h 12h",
}


def many(exchange: str) -> str:
    """How several symbols of an exchange are subscribed to."""
    if exchange in _APART:
        return APART
    return TOGETHER if exchange in _TOGETHER else EACH


def lacking(exchange: str) -> list[str]:
    """Timeframes that ccxt knows of an exchange and cannot subscribe to."""
    return _LACKING.get(exchange, "").split()
