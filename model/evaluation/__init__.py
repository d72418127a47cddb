"""Forecast past candles with a bundle and measure errors, intervals and probabilities."""
