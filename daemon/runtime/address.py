"""Format network addresses."""

from __future__ import annotations


def host_port(host: str, port: int) -> str:
    """An address as in URLs, with brackets around an IPv6 host.

    >>> host_port("broker.example", 1883), host_port("::1", 1883)
    ('broker.example:1883', '[::1]:1883')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
