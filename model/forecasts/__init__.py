"""Define a forecast and its JSON, and calibrate its interval and its probabilities."""
