"""Speak the exchanges' candle protocols."""
