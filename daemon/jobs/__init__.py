"""Run the commands that are work of their own."""
