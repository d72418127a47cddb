"""Compute scores, confidence intervals, the promotion gate and drift tests from plain arrays."""
