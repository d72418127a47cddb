"""Compute network inputs and scale them."""
