"""Compute scores, bootstraps and tests."""
