"""Decide which host names the pages are served under, against DNS rebinding. No I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

_LOCAL: Final = "localhost"
_SINGLE_HOST: Final = re.compile(r"[^\s@/?#\\]+")


def is_own_host(host_header: str, local_address: str, names: Collection[str]) -> bool:
    """Return whether a request's ``Host`` header names this server.

    A page of another site can make a browser send requests to this server under a name of that site
    and read the answers. It cannot make the browser use an address, or a name of another site.

    Args:
        host_header: the header, with or without a port.
        local_address: the address that the connection came to.
        names: further names of this server, in lower case.

    >>> [is_own_host(header, "127.0.0.1", ["pages.lan"])
    ...  for header in ("127.0.0.1:9108", "[::1]", "localhost", "PAGES.lan.:80", "evil.example")]
    [True, True, True, True, False]
    """
    if not _SINGLE_HOST.fullmatch(host_header):
        return False
    try:
        host = urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return False
    host = host.removesuffix(".")
    if host == _LOCAL or host in names:
        return True
    try:
        address = ipaddress.ip_address(host)
        local = ipaddress.ip_address(local_address)
    except ValueError:
        return False
    # With address translation (NAT), the address in the request is not the local one.
    return address == local or address.is_loopback or not local.is_loopback
