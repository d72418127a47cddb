"""Declare, update and render every Prometheus metric."""
