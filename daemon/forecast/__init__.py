"""Turn closed candles into forecasts and hand them to the publisher."""
