"""Describe how to reach the MQTT broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl


class Broker(NamedTuple):
    """How to reach the MQTT broker.

    Attributes:
        host: name or address.
        port: TCP port.
        version: "5" or "3.1.1".
        username: None for anonymous.
        password: None for none.
        keepalive_s: seconds between keep-alive packets.
        tls: trusted authorities and the client certificate; None for no TLS.
    """

    host: str
    port: int
    version: str
    username: str | None
    password: str | None
    keepalive_s: int
    tls: ssl.SSLContext | None = None
