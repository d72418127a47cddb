"""Read candle files, build training samples and support the training loop."""
