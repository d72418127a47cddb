"""Train a challenger and judge it."""
