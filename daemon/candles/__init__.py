"""Decide when a candle is closed, and keep rolling windows of candles."""
