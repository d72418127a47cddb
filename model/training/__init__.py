"""Prepare data and callbacks for training."""
