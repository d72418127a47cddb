"""Keep candles and forecasts in SQLite."""
