"""Evaluate a model on past candles."""
