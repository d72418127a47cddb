"""Define candles, timeframes, market keys, symbol names and errors for all other rooms."""
