"""Change the model, the symbols and the configuration of a running daemon, and watch its health."""
