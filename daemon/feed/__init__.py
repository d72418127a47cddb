"""Turn exchange streams into closed candles without gaps."""
