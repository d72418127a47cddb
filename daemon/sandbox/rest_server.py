"""Serve the REST addresses of the simulated exchange, with bans and request counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from daemon.sandbox.protocols.base import ExchangeProtocol, RestRequestError, Route

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from daemon.runtime.clock import Clock


class RestApi:
    """REST server of one exchange.

    Attributes:
        requests: number of requests received since the start, by path.
    """

    def __init__(self, protocol: ExchangeProtocol, clock: Clock) -> None:
        """Answer by ``protocol`` with the time of ``clock``."""
        self._protocol = protocol
        self._clock = clock
        self.requests: dict[str, int] = {}

    def app(self) -> web.Application:
        """The aiohttp application with every route."""
        app = web.Application(middlewares=[self._reject_if_banned])
        for path, route in self._protocol.routes.items():
            app.router.add_get(path, self._handler(route))
        return app

    def _handler(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            try:
                return _answer(route(request.query, self._clock.wall_ms()))
            except RestRequestError as error:
                return _answer(error.body, status=error.status)

        return handle

    @web.middleware
    async def _reject_if_banned(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests[request.path] = self.requests.get(request.path, 0) + 1
        faults, now_ms = self._protocol.market.faults, self._clock.wall_ms()
        if now_ms >= faults.ban_until_ms:
            return await handler(request)
        body = self._protocol.banned(faults.ban_status, faults.ban_until_ms)
        headers = {"Retry-After": faults.retry_after_s(now_ms)}
        return _answer(body, status=faults.ban_status, headers=headers)


def _answer(
    body: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json"
    )
