"""Show the published forecasts of a broker in a terminal."""
