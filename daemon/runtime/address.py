"""Network addresses as text."""

from __future__ import annotations


def host_port(host: str, port: int) -> str:
    """An address as URLs have it, with brackets around one of IPv6.

    >>> host_port("broker.example", 1883), host_port("::1", 1883)
    ('broker.example:1883', '[::1]:1883')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
