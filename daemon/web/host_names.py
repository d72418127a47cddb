"""Under which names the pages are served: a defence against DNS rebinding. No I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

_LOCAL: Final = "localhost"
_ONE_HOST: Final = re.compile(r"[^\s@/?#\\]+")


def is_own_host(said: str, reached: str, names: Collection[str]) -> bool:
    """Whether a request's ``Host`` names this server.

    A page of another site can make a browser ask this server under a name of that site, and read
    the answer. It cannot make the browser use an address or a name that is not the site's.

    Args:
        said: the header, with or without a port.
        reached: the address that the connection came to.
        names: further names of this server, in lower case.

    >>> [is_own_host(said, "127.0.0.1", ["pages.lan"])
    ...  for said in ("127.0.0.1:9108", "[::1]", "localhost", "PAGES.lan.:80", "evil.example")]
    [True, True, True, True, False]
    """
    if not _ONE_HOST.fullmatch(said):
        return False
    try:
        host = urlsplit(f"//{said}").hostname or ""
    except ValueError:
        return False
    host = host.removesuffix(".")
    if host == _LOCAL or host in names:
        return True
    try:
        address = ipaddress.ip_address(host)
        own = ipaddress.ip_address(reached)
    except ValueError:
        return False
    # Behind a translation of addresses, that which was asked for is not that which was reached.
    return address == own or address.is_loopback or not own.is_loopback
