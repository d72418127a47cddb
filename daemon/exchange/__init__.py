"""Read candles, history and time of exchanges through ccxt."""
