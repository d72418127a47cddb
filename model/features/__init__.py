"""Compute, scale and cut into windows the features that the network reads."""
