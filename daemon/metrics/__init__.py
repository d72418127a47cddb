"""Hold and render every Prometheus series."""
