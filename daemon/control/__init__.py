"""Change and watch a running daemon."""
