"""Diagnose an installation."""
