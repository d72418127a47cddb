"""Check the host name of each HTTP request, and its user name and password (Basic, RFC 7617)."""

from __future__ import annotations

import hmac
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import BasicAuth, hdrs, web

from daemon.runtime.logs import RateLimit
from daemon.web.host_names import is_own_host

if TYPE_CHECKING:
    import ssl

    from aiohttp.typedefs import Handler, Middleware

    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.web")

MAX_WAITING_GUESSES: Final = 4
"""Wrong passwords of one address that wait for their answer; further ones are refused at once."""

WRONG_PASSWORD_DELAY_S: Final = 1.0
"""How long a wrong password waits for its answer."""

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="candlecast", charset="UTF-8"'}


class PageAccess(NamedTuple):
    """Who may see the pages.

    Attributes:
        login: user name and password; None requires none.
        tls: certificate and key of the server; None for no TLS.
        names: further host names of the pages.
    """

    login: tuple[str, str] | None = None
    tls: ssl.SSLContext | None = None
    names: tuple[str, ...] = ()

    def middlewares(self, clock: Clock) -> list[Middleware]:
        """Return the checks that every request must pass, in order."""
        host_check = _check_host(frozenset(name.lower() for name in self.names), clock)
        return (
            [host_check] if self.login is None else [host_check, _check_login(*self.login, clock)]
        )


OPEN: Final = PageAccess()
"""No login and no TLS."""


def _check_host(names: frozenset[str], clock: Clock) -> Middleware:
    limit = RateLimit(burst=1)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # HTTP/1.0 has no Host header, and no browser uses that version.
        host = request.headers.get(hdrs.HOST)
        if host is None or is_own_host(host, _local_address(request), names):
            return await handler(request)
        if limit.admit(None, clock.monotonic()) is not None:
            log.warning(
                "refused a request for the host %.100r; if the pages are reached by that name, "
                "add it to http.names",
                host,
            )
        return web.Response(status=421, text="the host of this request is not in http.names\n")

    return check


def _local_address(request: web.Request) -> str:
    """Return the address of this machine that the connection came to."""
    name = None if request.transport is None else request.transport.get_extra_info("sockname")
    return str(name[0]) if name else ""


def _check_login(username: str, password: str, clock: Clock) -> Middleware:
    expected = f"{username}:{password}".encode()
    # Wrong passwords that wait for their answer, by address.
    waiting: Counter[str] = Counter()
    limit = RateLimit(burst=1)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        credentials, peer = _credentials(request), request.remote or ""
        # Compared as a whole and in constant time: the duration reveals nothing.
        if hmac.compare_digest(credentials, expected):
            return await handler(request)
        if credentials and limit.admit(peer, clock.monotonic()) is not None:
            log.warning("wrong name or password for the pages from %s", peer)
        if credentials and waiting[peer] >= MAX_WAITING_GUESSES:
            return web.Response(status=429, text="too many wrong passwords at once\n")
        if credentials:
            waiting[peer] += 1
            try:
                await clock.sleep(WRONG_PASSWORD_DELAY_S)
            finally:
                waiting[peer] -= 1
                if not waiting[peer]:
                    del waiting[peer]
        return web.Response(
            status=401, text="user name and password required\n", headers=_CHALLENGE
        )

    return check


def _credentials(request: web.Request) -> bytes:
    """Return ``name:password`` as the client sent it; empty if it sent none or they are invalid."""
    try:
        # Latin-1 keeps every byte: the client may have encoded them in any way.
        sent = BasicAuth.decode(request.headers.get(hdrs.AUTHORIZATION, ""), encoding="latin1")
    except ValueError:
        return b""
    return f"{sent.login}:{sent.password}".encode("latin1")
