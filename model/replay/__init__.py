"""Compute published forecasts again from history."""
