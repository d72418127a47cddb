"""Turn closed candles into forecasts."""
