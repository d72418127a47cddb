"""Score forecasts against the candles that followed."""
