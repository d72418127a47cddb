"""Who may see the pages: a login by HTTP Basic authentication (RFC 7617)."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import web

if TYPE_CHECKING:
    import ssl

    from aiohttp.typedefs import Handler, Middleware

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="candlecast", charset="UTF-8"'}


class Guard(NamedTuple):
    """What stands before the pages.

    Attributes:
        login: user name and password; None asks for none.
        tls: who we are; None for no TLS.
    """

    login: tuple[str, str] | None = None
    tls: ssl.SSLContext | None = None

    @property
    def middlewares(self) -> list[Middleware]:
        """What every request goes through first."""
        return [] if self.login is None else [_asking_for(*self.login)]


OPEN: Final = Guard()
"""Everybody who reaches the address is let in."""


def _asking_for(username: str, password: str) -> Middleware:
    expected = f"{username}:{password}".encode()

    @web.middleware
    async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Compared as a whole and in constant time: how long a no takes says nothing.
        if hmac.compare_digest(_credentials(request), expected):
            return await handler(request)
        return web.Response(status=401, text="name and password, please\n", headers=_CHALLENGE)

    return ask


def _credentials(request: web.Request) -> bytes:
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    try:
        return base64.b64decode(value.strip(), validate=True) if kind.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        return b""
