"""Serve recorded Binance messages and market lists over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiohttp import web
from websockets.asyncio.server import ServerConnection, broadcast, serve

from daemon.sandbox.market import Faults, Market
from daemon.sandbox.protocols.binance import exchange_info
from daemon.sandbox.recording import Playback, Recording
from model.core.candle import Timeframe
from tests.support.servers import MAX_WAIT_S

HOST = "127.0.0.1"
NOTHING = Recording(np.ones((1, 5)), 8)


def info(symbols: Iterable[str]) -> list[dict[str, Any]]:
    """Spot markets of ``symbols``, as Binance lists them."""
    playback = Playback(NOTHING, Timeframe.parse("1m"), 0, dict.fromkeys(symbols, 0), 1)
    listed: Any = exchange_info(Market(playback, Faults()), 0)["symbols"]
    return list(listed)


def perpetual(market: dict[str, Any]) -> dict[str, Any]:
    """The swap of the same name, settled in its quote currency."""
    return market | {
        "pair": market["symbol"],
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "marginAsset": market["quoteAsset"],
        "pricePrecision": 4,
        "quantityPrecision": 0,
        "underlyingType": "COIN",
    }


class RecordedExchange:
    """The exchange's two ends.

    Attributes:
        rest_url: e.g. ``http://127.0.0.1:40001``.
        ws_url: e.g. ``ws://127.0.0.1:40002``.
        asked: paths of the REST requests that it knows, in order; only markets can be had.
        subscribed: stream names by the path they were asked for on.
    """

    def __init__(self, spot: Iterable[str], linear: Iterable[str]) -> None:
        self.rest_url = ""
        self.ws_url = ""
        self.asked: list[str] = []
        self.subscribed: dict[str, list[str]] = {}
        self._listed = {
            "/api/v3/exchangeInfo": info(spot),
            "/fapi/v1/exchangeInfo": [perpetual(market) for market in info(linear)],
            "/dapi/v1/exchangeInfo": [],
        }
        self._clients: list[ServerConnection] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a REST request."""
        listed = self._listed.get(request.path)
        if listed is None:
            return web.json_response({"code": -1, "msg": "not on this wire"}, status=404)
        self.asked.append(request.path)
        return web.json_response({"symbols": listed})

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one websocket until it ends."""
        assert connection.request is not None
        path = connection.request.path
        async for text in connection:
            request = json.loads(text)
            await connection.send(json.dumps({"result": None, "id": request["id"]}))
            self._clients.append(connection)
            self.subscribed.setdefault(path, []).extend(request["params"])

    async def wait_subscribed(self, streams: int) -> None:
        """Wait until this many streams have been requested."""
        async with asyncio.timeout(MAX_WAIT_S):
            while sum(map(len, self.subscribed.values())) < streams:
                await asyncio.sleep(0.002)

    def send(self, frame: str | bytes) -> None:
        """Send one frame to every subscriber."""
        broadcast(self._clients, frame, raise_exceptions=True)


@asynccontextmanager
async def wire(
    spot: Iterable[str] = (), linear: Iterable[str] = ()
) -> AsyncIterator[RecordedExchange]:
    """A running exchange of those spot symbols and linear perpetuals (named as pairs)."""
    exchange = RecordedExchange(spot, linear)
    app = web.Application()
    app.router.add_get("/{path:.*}", exchange.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        exchange.rest_url = f"http://{HOST}:{runner.addresses[0][1]}"
        async with serve(exchange.handle, HOST, 0, close_timeout=1.0) as server:
            exchange.ws_url = f"ws://{HOST}:{next(iter(server.sockets)).getsockname()[1]}"
            yield exchange
    finally:
        await runner.cleanup()
