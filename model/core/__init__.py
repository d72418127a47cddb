"""Define candles, timeframes and errors."""
