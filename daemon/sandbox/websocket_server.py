"""Serve the candle streams of the simulated exchange over websockets."""

from __future__ import annotations

import asyncio
import logging
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from daemon.sandbox.protocols.base import ExchangeProtocol, Messages, Session

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from daemon.runtime.clock import Clock

_LOG: Final = logging.getLogger("candlecast.sandbox")

_MAX_BACKLOG: Final = 256
"""Bursts that may wait for a slow client. As on the real exchanges, a slower client loses its
connection; no message is dropped from the middle of a stream."""

_Queue = asyncio.Queue[list[bytes]]


class EncodedBurst(NamedTuple):
    """A burst that is ready to be written.

    Attributes:
        messages: of the burst, by topic.
        parts: number of topics and websocket frames of each client that was connected.
    """

    messages: Messages
    parts: dict[ServerConnection, tuple[int, bytes]]


class StreamServer:
    """Websocket server of one exchange.

    Attributes:
        cut_off: number of clients that lost their connection because they were too slow.
        max_time_ms: end of the candle whose closing message is sent next, Unix milliseconds.
            Responses to subscriptions contain no later candle, so messages stay in order of time.
        handshakes: number of requested connections, including rejected ones.
    """

    def __init__(self, protocol: ExchangeProtocol, clock: Clock) -> None:
        """Answer by ``protocol`` with the time of ``clock``."""
        self._protocol = protocol
        self._clock = clock
        self._clients: dict[ServerConnection, tuple[Session, _Queue]] = {}
        self.cut_off = 0
        self.handshakes = 0
        self.max_time_ms = sys.maxsize

    @property
    def clients(self) -> int:
        """Number of open connections."""
        return len(self._clients)

    @property
    def backlog(self) -> int:
        """Number of bursts that wait for the slowest client."""
        return max((queue.qsize() for _, queue in self._clients.values()), default=0)

    def refuse_path(self, connection: ServerConnection, request: Request) -> Response | None:
        """Reject an unknown path with 404, and any connection during a ban."""
        self.handshakes += 1
        faults, now_ms = self._protocol.market.faults, self._clock.wall_ms()
        if faults.no_handshakes and now_ms < faults.ban_until_ms:
            response = connection.respond(HTTPStatus(faults.ban_status), "slow down\n")
            response.headers["Retry-After"] = faults.retry_after_s(now_ms)
            return response
        if self._protocol.session(request.path) is None:
            return connection.respond(HTTPStatus.NOT_FOUND, "no such stream path\n")
        return None

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one connection until it ends."""
        session = self._protocol.session(connection.request.path) if connection.request else None
        if session is None:
            return
        queue: _Queue = asyncio.Queue(_MAX_BACKLOG)
        self._clients[connection] = (session, queue)
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(_send_forever(connection, queue))
                self._enqueue(connection, queue, session.on_connect(self._clock.wall_ms()))
                async for text in connection:
                    now_ms = min(self._clock.wall_ms(), self.max_time_ms)
                    self._enqueue(connection, queue, session.reply(text, now_ms))
                sender.cancel()
        except* ConnectionClosed:
            _LOG.debug("client disconnected without a closing handshake")
        finally:
            self._clients.pop(connection, None)

    def send_burst(self, messages: Messages) -> None:
        """Queue every client's part of ``messages`` at the same time."""
        for connection, (session, queue) in tuple(self._clients.items()):
            if part := session.select(messages):
                self._enqueue(connection, queue, part)

    def encode_burst(self, messages: Messages) -> EncodedBurst:
        """Encode every client's part of ``messages`` as websocket frames."""
        return EncodedBurst(
            messages,
            {
                connection: (len(session.topics), text_frames(session.select(messages)))
                for connection, (session, _) in self._clients.items()
            },
        )

    def send_encoded(self, burst: EncodedBurst) -> None:
        """Send an encoded burst, with one write per client that was connected then."""
        for connection, (session, queue) in tuple(self._clients.items()):
            topics, frames = burst.parts.get(connection, (0, b""))
            if topics == len(session.topics):
                connection.transport.write(frames)
            elif part := session.select(burst.messages):
                self._enqueue(connection, queue, part)

    def send_heartbeat(self, message: bytes) -> None:
        """Send ``message`` to every client that is subscribed to something."""
        for connection, (session, queue) in tuple(self._clients.items()):
            if session.topics:
                self._enqueue(connection, queue, [message])

    def _enqueue(self, connection: ServerConnection, queue: _Queue, part: list[bytes]) -> None:
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


def text_frames(messages: list[bytes]) -> bytes:
    """Encode messages as a server's websocket frames, which are not masked."""
    frames = (Frame(Opcode.TEXT, message).serialize(mask=False) for message in messages)
    return b"".join(frames)
