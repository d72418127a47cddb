"""Run a simulated exchange and an MQTT broker on loopback, with recorded candles."""

from typing import Final

EXCHANGES: Final = ("binance", "okx", "bybit", "kraken")
"""ccxt ids of the exchanges that can be simulated."""
