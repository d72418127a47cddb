"""Implement the server side of each exchange's candle protocol."""
