"""Store model bundles on disk, verify them and record which one is served and why."""
