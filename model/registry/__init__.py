"""Keep model bundles on disk."""
