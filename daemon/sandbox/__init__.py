"""An exchange and a broker of one's own: real protocols, recorded candles, loopback only."""

from typing import Final

EXCHANGES: Final = ("binance", "okx", "bybit", "kraken")
"""Whose protocols the sandbox exchange speaks, by ccxt id."""
