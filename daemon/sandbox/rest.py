"""The REST side of the sandbox exchange: Binance spot's public candle endpoints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from daemon.clock import Clock
from daemon.sandbox.market import Market, exchange_info, rest_row

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

_DEFAULT_LIMIT: Final = 500
_MAX_LIMIT: Final = 1_000
_NUMBER: Final = re.compile(r"\d{1,20}")


class _Refusal(Exception):  # noqa: N818 - an answer of the protocol, not a mishap
    """A request that Binance answers with HTTP 400 and its own code."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg


class RestApi:
    """Handlers over one market.

    Attributes:
        requests: requests received since the start, by path.
    """

    def __init__(self, market: Market, clock: Clock) -> None:
        """Answer from ``market`` at the times of ``clock``."""
        self._market = market
        self._clock = clock
        self.requests: dict[str, int] = {}

    def app(self) -> web.Application:
        """The aiohttp application with every route."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/api/v3/ping", self._ping)
        app.router.add_get("/api/v3/time", self._time)
        app.router.add_get("/api/v3/exchangeInfo", self._exchange_info)
        app.router.add_get("/api/v3/klines", self._klines)
        # A client that was not told to leave the futures alone asks for them too: none are listed.
        app.router.add_get("/fapi/v1/exchangeInfo", self._no_futures)
        app.router.add_get("/dapi/v1/exchangeInfo", self._no_futures)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests[request.path] = self.requests.get(request.path, 0) + 1
        faults, now_ms = self._market.faults, self._clock.wall_ms()
        if now_ms < faults.ban_until_ms:
            return _banned(faults.ban_status, faults.ban_until_ms, now_ms)
        try:
            return await handler(request)
        except _Refusal as refusal:
            return _answer({"code": refusal.code, "msg": refusal.msg}, status=400)

    async def _ping(self, _request: web.Request) -> web.Response:
        return _answer({})

    async def _time(self, _request: web.Request) -> web.Response:
        return _answer({"serverTime": self._clock.wall_ms()})

    async def _exchange_info(self, _request: web.Request) -> web.Response:
        return _answer(exchange_info(self._market, self._clock.wall_ms()))

    async def _no_futures(self, _request: web.Request) -> web.Response:
        return _answer({"timezone": "UTC", "serverTime": self._clock.wall_ms(), "symbols": []})

    async def _klines(self, request: web.Request) -> web.Response:
        market_id = _mandatory(request, "symbol")
        interval = _mandatory(request, "interval")
        if (symbol := self._market.symbol_of_id.get(market_id)) is None:
            code, msg = -1121, "Invalid symbol."
            raise _Refusal(code, msg)
        # The sandbox has one grid; any other interval is one that this exchange lacks.
        if interval != self._market.interval:
            code, msg = -1120, "Invalid interval."
            raise _Refusal(code, msg)
        limit = _number(request, "limit")
        if limit == 0:
            code, msg = -1130, "Data sent for parameter 'limit' is not valid."
            raise _Refusal(code, msg)
        klines = self._market.klines(
            symbol,
            _number(request, "startTime"),
            _number(request, "endTime"),
            min(_DEFAULT_LIMIT if limit is None else limit, _MAX_LIMIT),
            self._clock.wall_ms(),
        )
        return _answer([rest_row(kline) for kline in klines])


def _mandatory(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        code = -1102
        msg = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise _Refusal(code, msg)
    return value


def _number(request: web.Request, name: str) -> int | None:
    value = request.query.get(name)
    if value is None:
        return None
    if _NUMBER.fullmatch(value) is None:
        code = -1100
        msg = f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
        raise _Refusal(code, msg)
    return int(value)


def _banned(status: int, until_ms: int, now_ms: int) -> web.Response:
    retry_after_s = -(-(until_ms - now_ms) // 1_000)
    msg = "Too much request weight used; please use WebSocket Streams to avoid bans."
    if status == 418:  # noqa: PLR2004 - Binance's status for a banned address
        msg = f"Way too much request weight used; IP banned until {until_ms}."
    headers = {"Retry-After": str(retry_after_s)}
    return _answer({"code": -1003, "msg": msg}, status=status, headers=headers)


def _answer(
    body: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json"
    )
