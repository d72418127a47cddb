"""The websocket side of the sandbox exchange: connections, bursts and ways to break them."""

from __future__ import annotations

import asyncio
import logging
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from websockets.exceptions import ConnectionClosed

from daemon.sandbox.protocols.base import ExchangeProtocol, Messages, Session

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from daemon.runtime.clock import Clock

_LOG: Final = logging.getLogger("candlecast.sandbox")

_BACKLOG: Final = 256
"""Bursts that may wait for a slow client. A client further behind is cut off and counted, as the
real exchange does; nothing is dropped from the middle of a stream."""

_Queue = asyncio.Queue[list[bytes]]


class StreamServer:
    """Connections of the stream side and the bursts that go to them.

    Attributes:
        cut_off: clients that were too slow and lost their connection.
        latest_ms: end of the candle whose closing message comes next, Unix milliseconds. An answer
            to a subscription shows no later candle: what a client is sent is in order of time.
        handshakes: connections that were asked for, refused ones included.
    """

    def __init__(self, protocol: ExchangeProtocol, clock: Clock) -> None:
        """Serve clients that speak ``protocol``."""
        self._protocol = protocol
        self._clock = clock
        self._clients: dict[ServerConnection, tuple[Session, _Queue]] = {}
        self.cut_off = 0
        self.handshakes = 0
        self.latest_ms = sys.maxsize

    @property
    def clients(self) -> int:
        """Connections that are open now."""
        return len(self._clients)

    @property
    def backlog(self) -> int:
        """Bursts that wait for the slowest client."""
        return max((queue.qsize() for _, queue in self._clients.values()), default=0)

    def refuse_path(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer 404 at an address that the exchange does not have, and what a ban demands."""
        self.handshakes += 1
        faults, now_ms = self._protocol.market.faults, self._clock.wall_ms()
        if faults.no_handshakes and now_ms < faults.ban_until_ms:
            refusal = connection.respond(HTTPStatus(faults.ban_status), "slow down\n")
            refusal.headers["Retry-After"] = faults.retry_after_s(now_ms)
            return refusal
        if self._protocol.session(request.path) is None:
            return connection.respond(HTTPStatus.NOT_FOUND, "no such stream path\n")
        return None

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one connection until it ends."""
        session = self._protocol.session(connection.request.path) if connection.request else None
        if session is None:
            return
        queue: _Queue = asyncio.Queue(_BACKLOG)
        self._clients[connection] = (session, queue)
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(_send_forever(connection, queue))
                self._put(connection, queue, session.on_connect(self._clock.wall_ms()))
                async for text in connection:
                    now_ms = min(self._clock.wall_ms(), self.latest_ms)
                    self._put(connection, queue, session.reply(text, now_ms))
                sender.cancel()
        except* ConnectionClosed:
            _LOG.debug("client left without a closing handshake")
        finally:
            self._clients.pop(connection, None)

    def burst(self, messages: Messages) -> None:
        """Hand every client its part of ``messages``, all in the same instant."""
        for connection, (session, queue) in tuple(self._clients.items()):
            if part := session.select(messages):
                self._put(connection, queue, part)

    def beat(self, message: bytes) -> None:
        """Send ``message`` to every client that is subscribed to something."""
        for connection, (session, queue) in tuple(self._clients.items()):
            if session.topics:
                self._put(connection, queue, [message])

    def _put(self, connection: ServerConnection, queue: _Queue, part: list[bytes]) -> None:
        try:
            queue.put_nowait(part)
        except asyncio.QueueFull:
            if self._clients.pop(connection, None):
                self.cut_off += 1
            connection.transport.abort()

    def abort_all(self) -> None:
        """Break every connection without a closing handshake."""
        for connection in tuple(self._clients):
            connection.transport.abort()

    async def close_all(self, code: int) -> None:
        """Close every connection with a closing handshake."""
        for connection in tuple(self._clients):
            await connection.close(code)


async def _send_forever(connection: ServerConnection, queue: _Queue) -> None:
    while True:
        for message in await queue.get():
            await connection.send(message, text=True)
