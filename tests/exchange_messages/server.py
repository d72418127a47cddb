"""A server that accepts a subscription to candles and sends given messages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from tests.exchange_messages.descriptions import Message, Stream

HOST = "127.0.0.1"


class Server:
    """Its addresses and the requests it received.

    Attributes:
        rest_url: address for REST; it answers with the history or the websocket's address.
        ws_url: address of the websocket.
        asked: every text received over the websocket, and the path of each connection.
        connections: how many there were.
    """

    def __init__(
        self, stream: Stream, messages: Sequence[Message], history: Callable[[], Any]
    ) -> None:
        self.rest_url = ""
        self.ws_url = ""
        self.asked: list[str] = []
        self.connections = 0
        self._history = history
        self._stream = stream
        self._messages = messages

    @property
    def is_asked(self) -> bool:
        """Whether candles have been subscribed to."""
        return any(self._stream.channel in text for text in self.asked)

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one websocket until it ends."""
        assert connection.request is not None
        self.connections += 1
        self.asked.append(connection.request.path)
        if self._stream.greets:
            await self._send_messages(connection)
        async for text in connection:
            asked_before = self.is_asked
            self.asked.append(text.decode() if isinstance(text, bytes) else text)
            if self.is_asked and not asked_before:
                await self._send_messages(connection)

    async def _send_messages(self, connection: ServerConnection) -> None:
        for message in self._messages:
            packed = self._stream.packed
            await connection.send(packed(message) if packed else json.dumps(message))

    async def answer(self, _request: web.Request) -> web.Response:
        """Answer with the history, or with the address of the websocket, as KuCoin does."""
        server: dict[str, Any] = {"endpoint": self.ws_url, "pingInterval": 18_000}
        where = {"code": "200000", "data": {"token": "x", "instanceServers": [server]}}
        return web.json_response(self._history() or where)


@asynccontextmanager
async def serving(
    stream: Stream, messages: Sequence[Message], history: Callable[[], Any] = dict
) -> AsyncIterator[Server]:
    """A running server that sends ``messages`` after a subscription to the stream.

    Args:
        stream: the stream that it offers.
        messages: in the order of sending.
        history: makes the answer by REST.
    """
    server = Server(stream, messages, history)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        server.rest_url = f"http://{HOST}:{runner.addresses[0][1]}"
        async with serve(server.handle, HOST, 0, close_timeout=1.0) as sockets:
            port = next(iter(sockets.sockets)).getsockname()[1]
            server.ws_url = f"ws://{HOST}:{port}/{stream.host}"
            yield server
    finally:
        await runner.cleanup()
