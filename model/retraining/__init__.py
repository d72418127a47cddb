"""Train a challenger, compare it with the champion and write the report."""
