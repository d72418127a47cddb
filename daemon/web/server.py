"""The local web server: /metrics for Prometheus, /healthz and /readyz for whoever watches."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from daemon.runtime.address import host_port
from daemon.runtime.logs import RateLimit
from daemon.web.auth import OPEN, PageAccess
from model.core.errors import CandlecastError

if TYPE_CHECKING:
    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.web")

_LARGEST_BODY: Final = 1 << 10
"""Nothing here takes a body."""

_MOST_CONNECTIONS: Final = 128
"""Sixteen browsers and some scrapers need half; more would take the exchange's descriptors."""

_IDLE_S: Final = 60.0
"""A connection that asks nothing for so long, or does not come to the end of a question, goes."""

_HANDSHAKE_S: Final = 5.0
"""Until then nobody knows whether it will be a connection, so it is not counted."""

_GRACE_S: Final = 1.0
"""How long a scrape may go on once the daemon stops."""


_NOT_HTTP: Final = (HttpProcessingError, ClientPayloadError, web.RequestPayloadError)


class Health(NamedTuple):
    """How the daemon is, for machines and people.

    Attributes:
        alive: the path makes progress; a supervisor restarts the process when it does not.
        ready: forecasts are being published.
        detail: what a person wants to know; becomes JSON.
    """

    alive: bool
    ready: bool
    detail: Mapping[str, object]


async def serve_http(
    host: str,
    port: int,
    metrics: Metrics,
    health: Callable[[], Health],
    clock: Clock,
    on_listening: Callable[[str], None] | None = None,
    extend: Callable[[web.Application], None] | None = None,
    guard: PageAccess = OPEN,
) -> None:
    """Serve until cancelled; what goes wrong in a page is its own 500, never the daemon's end.

    Args:
        host: address to listen on.
        port: TCP port; 0 takes one that is free.
        metrics: rendered for /metrics.
        health: asked at every request to /healthz and /readyz.
        clock: yields while rendering.
        on_listening: told the URL once it answers.
        extend: adds further pages.
        guard: login and TLS.

    Raises:
        CandlecastError: the address is taken or not this machine's.
    """
    application = _application(metrics, health, clock, guard)
    if extend is not None:
        extend(application)
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=_GRACE_S,
        keepalive_timeout=_IDLE_S,
        logger=_ServerLog(clock),
    )
    await runner.setup()
    try:
        listener = await _listen(runner, host, port, guard)
        address = host_port(host, listener.sockets[0].getsockname()[1])
        url = f"{'https' if guard.tls else 'http'}://{address}"
        log.info("status page at %s, metrics and health at /metrics, /healthz, /readyz", url)
        if on_listening is not None:
            on_listening(url)
        try:
            await asyncio.Event().wait()
        finally:
            listener.close()
    finally:
        await runner.cleanup()


class _ServerLog(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp says, with a line now and then instead of a traceback for what is not HTTP."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.getLogger("aiohttp.server"), {})
        self._clock = clock
        self._limit = RateLimit(burst=1)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 - logging's
        """Log, as `logging.LoggerAdapter` does."""
        error = kwargs.get("exc_info")
        if not isinstance(error, _NOT_HTTP):
            super().log(level, msg, *args, **kwargs)
        elif self._limit.admit(None, self._clock.monotonic()) is not None:
            # What it holds may be secret: a header that is not closed, for example.
            whose = f" from {args[0]}" if args else ""
            log.info("refused a request%s that is not HTTP (%s)", whose, type(error).__name__)


class _Full(asyncio.Protocol):
    """Lets a connection go that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _listen(runner: web.AppRunner, host: str, port: int, guard: PageAccess) -> asyncio.Server:
    server = runner.server
    assert server is not None  # noqa: S101 - it is set up

    def admit() -> asyncio.Protocol:
        return server() if len(server.connections) < _MOST_CONNECTIONS else _Full()

    try:
        return await asyncio.get_running_loop().create_server(
            admit,
            host,
            port,
            ssl=guard.tls,
            ssl_handshake_timeout=_HANDSHAKE_S if guard.tls else None,
        )
    except OSError as error:
        raise CandlecastError(_refusal(host, port, error)) from None


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"http.port {port} on http.host {host} is taken; stop what listens there "
            "or set another http.port (0 takes a free one)"
        )
    return (
        f"cannot listen on http.host {host}, http.port {port} ({error.strerror}); "
        "set http.host to an address of this machine, such as 127.0.0.1"
    )


def _application(
    metrics: Metrics, health: Callable[[], Health], clock: Clock, guard: PageAccess
) -> web.Application:
    async def exposition(request: web.Request) -> web.Response:
        text, content_type = await metrics.render(request.headers.get("Accept", ""), clock)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        now = health()
        return _answer(now, good=now.alive)

    async def readyz(_: web.Request) -> web.Response:
        now = health()
        return _answer(now, good=now.ready)

    application = web.Application(
        middlewares=guard.middlewares(clock), client_max_size=_LARGEST_BODY
    )
    application.router.add_get("/metrics", exposition)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    return application


def _answer(health: Health, *, good: bool) -> web.Response:
    document = {"alive": health.alive, "ready": health.ready, **health.detail}
    return web.Response(
        body=orjson.dumps(document),
        status=200 if good else 503,
        content_type="application/json",
    )
