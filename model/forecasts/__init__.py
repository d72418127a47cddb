"""Define a forecast, its interval and its probabilities."""
