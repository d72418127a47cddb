"""Store what must survive a restart."""
