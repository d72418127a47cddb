"""Check an installation and advise what to correct."""
