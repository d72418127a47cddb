"""Parse the command line, run each command and print its results."""
