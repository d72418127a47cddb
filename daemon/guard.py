"""Who may see the pages: a login by HTTP Basic authentication (RFC 7617)."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import web

if TYPE_CHECKING:
    import ssl

    from aiohttp.typedefs import Handler, Middleware

    from daemon.clock import Clock

GUESSES: Final = 4
"""Wrong passwords of one address that are waiting for their answer; more are not looked at."""

PAUSE_S: Final = 1.0
"""How long that answer takes."""

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="candlecast", charset="UTF-8"'}


class Guard(NamedTuple):
    """What stands before the pages.

    Attributes:
        login: user name and password; None asks for none.
        tls: who we are; None for no TLS.
    """

    login: tuple[str, str] | None = None
    tls: ssl.SSLContext | None = None

    def middlewares(self, clock: Clock) -> list[Middleware]:
        """What every request goes through first."""
        return [] if self.login is None else [_asking_for(*self.login, clock)]


OPEN: Final = Guard()
"""Everybody who reaches the address is let in."""


def _asking_for(username: str, password: str, clock: Clock) -> Middleware:
    expected = f"{username}:{password}".encode()
    guessing: Counter[str] = Counter()

    @web.middleware
    async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        said, peer = _credentials(request), request.remote or ""
        if said and guessing[peer] >= GUESSES:
            return web.Response(status=429, text="too many wrong passwords at once\n")
        # Compared as a whole and in constant time: how long a no takes says nothing.
        if hmac.compare_digest(said, expected):
            return await handler(request)
        if said:
            guessing[peer] += 1
            try:
                await clock.sleep(PAUSE_S)
            finally:
                guessing[peer] -= 1
                if not guessing[peer]:
                    del guessing[peer]
        return web.Response(status=401, text="name and password, please\n", headers=_CHALLENGE)

    return ask


def _credentials(request: web.Request) -> bytes:
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    try:
        return base64.b64decode(value.strip(), validate=True) if kind.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        return b""
