"""Compute published forecasts again from history and compare them with what was published."""
