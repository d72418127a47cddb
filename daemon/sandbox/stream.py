"""The websocket side of the sandbox exchange: Binance spot's market streams."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import orjson
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

_LOG: Final = logging.getLogger(__name__)

_BACKLOG: Final = 256
"""Bursts that may wait for a slow client. A client further behind is cut off and counted, as the
real exchange does; nothing is dropped from the middle of a stream."""

_STREAM: Final = re.compile(r"[a-z0-9]+@[A-Za-z0-9_@+:]+")
_ID: Final = re.compile(r"[A-Za-z0-9]{1,36}")
_INT64: Final = 2**63

_Queue = asyncio.Queue[list[bytes]]

Messages = Callable[[str], list[bytes]]
"""Raw events of one stream name in this burst; empty when there is nothing to say."""


class _Refusal(Exception):  # noqa: N818 - an answer of the protocol, not a mishap
    """A request that is answered with Binance's error code and message."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg


class Session:
    """One client's subscriptions. No I/O here: text in, text out."""

    def __init__(self, *, combined: bool, names: Iterable[str], max_streams: int) -> None:
        """Start with the streams named in the address.

        Args:
            combined: wrap every event in ``{"stream": …, "data": …}``.
            names: stream names; those that are none (ccxt connects to ``/ws/0``) stay silent.
            max_streams: streams that one connection may have.
        """
        self.combined = combined
        self.streams: dict[str, None] = dict.fromkeys(names)
        self._max_streams = max_streams

    def reply(self, text: str | bytes) -> bytes:
        """Carry out one request and answer it."""
        request_id: object = None
        try:
            request = _parse(text)
            request_id = _checked_id(request.get("id"))
            return orjson.dumps({"result": self._carry_out(request), "id": request_id})
        except _Refusal as refusal:
            error: dict[str, object] = {"error": {"code": refusal.code, "msg": refusal.msg}}
            return orjson.dumps(error if request_id is None else error | {"id": request_id})

    def _carry_out(self, request: dict[str, object]) -> list[str] | None:
        method = request.get("method")
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.streams)
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            detail = "missing field `method`" if method is None else f"unknown variant `{method}`"
            code = 2
            msg = (
                f"Invalid request: {detail}, "
                "expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`"
            )
            raise _Refusal(code, msg)
        names = _checked_names(request.get("params"))
        if method == "UNSUBSCRIBE":
            for name in names:
                self.streams.pop(name, None)
            return None
        wanted = self.streams | dict.fromkeys(names)
        if len(wanted) > self._max_streams:
            code, msg = 4, "Too many subscriptions"
            raise _Refusal(code, msg)
        self.streams = wanted
        return None

    def select(self, messages: Messages) -> list[bytes]:
        """This session's part of a burst, in the order of its subscriptions."""
        if not self.combined:
            return [raw for name in self.streams for raw in messages(name)]
        return [
            b'{"stream":"%b","data":%b}' % (name.encode(), raw)
            for name in self.streams
            for raw in messages(name)
        ]


def _parse(text: str | bytes) -> dict[str, object]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        code, msg = 3, f"Invalid JSON: {error}"
        raise _Refusal(code, msg) from None
    if not isinstance(request, dict):
        code, msg = 2, "Invalid request: expected an object"
        raise _Refusal(code, msg)
    return request


def _checked_id(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        legal = -_INT64 <= value < _INT64
    else:
        legal = value is None or (isinstance(value, str) and _ID.fullmatch(value) is not None)
    if not legal:
        code = 2
        msg = "Invalid request: request ID must be an integer, alphanumeric or null"
        raise _Refusal(code, msg)
    return value


def _checked_names(params: object) -> list[str]:
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        code, msg = 2, "Invalid request: params must be an array of stream names"
        raise _Refusal(code, msg)
    if not all(_STREAM.fullmatch(name) for name in params):
        code, msg = 2, "Invalid request: invalid stream"
        raise _Refusal(code, msg)
    return params


class StreamServer:
    """Connections of the stream side and the bursts that go to them.

    Attributes:
        cut_off: clients that were too slow and lost their connection.
    """

    def __init__(self, max_streams: int) -> None:
        """Serve connections of at most ``max_streams`` streams each."""
        self._max_streams = max_streams
        self._clients: dict[ServerConnection, tuple[Session, _Queue]] = {}
        self.cut_off = 0

    @property
    def clients(self) -> int:
        """Connections that are open now."""
        return len(self._clients)

    @staticmethod
    def refuse_path(connection: ServerConnection, request: Request) -> Response | None:
        """Answer 404 to a handshake that is neither ``/ws…`` nor ``/stream…``."""
        if _address(request.path) is None:
            return connection.respond(HTTPStatus.NOT_FOUND, "no such stream path\n")
        return None

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one connection until it ends."""
        address = _address(connection.request.path) if connection.request else None
        if address is None:
            return
        combined, names = address
        session = Session(combined=combined, names=names, max_streams=self._max_streams)
        queue: _Queue = asyncio.Queue(_BACKLOG)
        self._clients[connection] = (session, queue)
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(_send_forever(connection, queue))
                async for text in connection:
                    self._put(connection, queue, [session.reply(text)])
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


def _address(target: str) -> tuple[bool, list[str]] | None:
    """Read a request target: whether it is combined, and its stream names."""
    url = urlsplit(target)
    head, *names = url.path.strip("/").split("/")
    if head == "ws":
        return False, [name for name in names if name]
    if head == "stream" and not names:
        listed = "/".join(parse_qs(url.query).get("streams", []))
        return True, [name for name in listed.split("/") if name]
    return None
