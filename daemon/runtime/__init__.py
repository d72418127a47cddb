"""Provide what any asyncio service needs: clock, tasks, retries, logs, systemd, TLS."""
