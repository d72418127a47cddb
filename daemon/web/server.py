"""Run the local web server with /metrics, /healthz, /readyz and the status page."""

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

_MAX_BODY_BYTES: Final = 1 << 10
"""No page takes a request body."""

_MAX_CONNECTIONS: Final = 128
"""Sixteen browsers and some scrapers need half; more would use up file descriptors that the
connections to the exchange need."""

_MAX_IDLE_S: Final = 60.0
"""A connection without a complete request for this long is closed."""

_MAX_TLS_HANDSHAKE_S: Final = 5.0
"""Connections count against `_MAX_CONNECTIONS` only after the handshake, so it is kept short."""

_SHUTDOWN_TIMEOUT_S: Final = 1.0
"""How long a request may take to finish when the daemon stops."""

_INVALID_REQUEST: Final = (HttpProcessingError, ClientPayloadError, web.RequestPayloadError)
"""Raised for requests that are not valid HTTP."""


class Health(NamedTuple):
    """The health of the daemon.

    Attributes:
        alive: the pipeline makes progress; a supervisor restarts the process when it does not.
        ready: forecasts are being published.
        detail: further facts for people; written as JSON.
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
    add_pages: Callable[[web.Application], None] | None = None,
    access: PageAccess = OPEN,
) -> None:
    """Serve until cancelled; an exception in a page is answered with 500 and ends nothing else.

    Args:
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        metrics: rendered for /metrics.
        health: called at every request to /healthz and /readyz.
        clock: yields while rendering.
        on_listening: called with the URL once the server accepts connections.
        add_pages: adds further pages.
        access: login, TLS and host names.

    Raises:
        CandlecastError: the address is taken or not one of this machine.
    """
    application = _application(metrics, health, clock, access)
    if add_pages is not None:
        add_pages(application)
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
        keepalive_timeout=_MAX_IDLE_S,
        logger=_ServerLog(clock),
    )
    await runner.setup()
    try:
        listener = await _listen(runner, host, port, access)
        address = host_port(host, listener.sockets[0].getsockname()[1])
        url = f"{'https' if access.tls else 'http'}://{address}"
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
    """The log of aiohttp; for invalid requests, a rate-limited line instead of a traceback."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.getLogger("aiohttp.server"), {})
        self._clock = clock
        self._limit = RateLimit(burst=1)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 - logging's
        """Log, as `logging.LoggerAdapter` does."""
        error = kwargs.get("exc_info")
        if not isinstance(error, _INVALID_REQUEST):
            super().log(level, msg, *args, **kwargs)
        elif self._limit.admit(None, self._clock.monotonic()) is not None:
            # Its content is not logged, because it may hold a secret, such as a part of a header.
            peer = f" from {args[0]}" if args else ""
            log.info("refused a request%s that is not HTTP (%s)", peer, type(error).__name__)


class _Refused(asyncio.Protocol):
    """Closes a connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _listen(
    runner: web.AppRunner, host: str, port: int, access: PageAccess
) -> asyncio.Server:
    server = runner.server
    assert server is not None  # noqa: S101 - it is set up

    def accept() -> asyncio.Protocol:
        return server() if len(server.connections) < _MAX_CONNECTIONS else _Refused()

    try:
        return await asyncio.get_running_loop().create_server(
            accept,
            host,
            port,
            ssl=access.tls,
            ssl_handshake_timeout=_MAX_TLS_HANDSHAKE_S if access.tls else None,
        )
    except OSError as error:
        raise CandlecastError(_listen_error(host, port, error)) from None


def _listen_error(host: str, port: int, error: OSError) -> str:
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
    metrics: Metrics, health: Callable[[], Health], clock: Clock, access: PageAccess
) -> web.Application:
    async def exposition(request: web.Request) -> web.Response:
        text, content_type = await metrics.render(request.headers.get("Accept", ""), clock)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        current = health()
        return _health_response(current, is_good=current.alive)

    async def readyz(_: web.Request) -> web.Response:
        current = health()
        return _health_response(current, is_good=current.ready)

    application = web.Application(
        middlewares=access.middlewares(clock), client_max_size=_MAX_BODY_BYTES
    )
    application.router.add_get("/metrics", exposition)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    return application


def _health_response(health: Health, *, is_good: bool) -> web.Response:
    document = {"alive": health.alive, "ready": health.ready, **health.detail}
    return web.Response(
        body=orjson.dumps(document),
        status=200 if is_good else 503,
        content_type="application/json",
    )
