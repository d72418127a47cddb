"""Show forecasts in a terminal."""
