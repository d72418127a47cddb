"""Who may see the pages: by the name they ask for, and by a login (Basic, RFC 7617)."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import hdrs, web

from daemon.runtime.logs import RateLimit
from daemon.web.host_names import is_own_host

if TYPE_CHECKING:
    import ssl

    from aiohttp.typedefs import Handler, Middleware

    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.web")

GUESSES: Final = 4
"""Wrong passwords of one address that wait for their answer; more are refused at once."""

PAUSE_S: Final = 1.0
"""How long that answer takes."""

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="candlecast", charset="UTF-8"'}


class PageAccess(NamedTuple):
    """What stands before the pages.

    Attributes:
        login: user name and password; None asks for none.
        tls: who we are; None for no TLS.
        names: further host names of the pages.
    """

    login: tuple[str, str] | None = None
    tls: ssl.SSLContext | None = None
    names: tuple[str, ...] = ()

    def middlewares(self, clock: Clock) -> list[Middleware]:
        """What every request goes through first."""
        named = _named(frozenset(name.lower() for name in self.names), clock)
        return [named] if self.login is None else [named, _asking_for(*self.login, clock)]


OPEN: Final = PageAccess()
"""Everybody who reaches the address is let in."""


def _named(names: frozenset[str], clock: Clock) -> Middleware:
    limit = RateLimit(burst=1)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Version 1.0 does without the header, and no browser speaks it.
        said = request.headers.get(hdrs.HOST)
        if said is None or is_own_host(said, _reached(request), names):
            return await handler(request)
        if limit.admit(None, clock.monotonic()) is not None:
            log.warning(
                "refused a request for the host %.100r; if the pages are reached by that name, "
                "add it to http.names",
                said,
            )
        return web.Response(status=421, text="the host of this request is not in http.names\n")

    return check


def _reached(request: web.Request) -> str:
    name = None if request.transport is None else request.transport.get_extra_info("sockname")
    return str(name[0]) if name else ""


def _asking_for(username: str, password: str, clock: Clock) -> Middleware:
    expected = f"{username}:{password}".encode()
    guessing: Counter[str] = Counter()
    limit = RateLimit(burst=1)

    @web.middleware
    async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        said, peer = _credentials(request), request.remote or ""
        # Compared as a whole and in constant time: how long a no takes says nothing.
        if hmac.compare_digest(said, expected):
            return await handler(request)
        if said and limit.admit(peer, clock.monotonic()) is not None:
            log.warning("wrong name or password for the pages from %s", peer)
        if said and guessing[peer] >= GUESSES:
            return web.Response(status=429, text="too many wrong passwords at once\n")
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
