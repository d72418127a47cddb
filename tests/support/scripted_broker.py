"""Run a small MQTT broker with scripted answers that mosquitto never sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Self

import mqtt5

from tests.support.servers import HOST

_CONNECT, _PUBLISH, _SUBSCRIBE, _PINGREQ, _DISCONNECT = 1, 3, 8, 12, 14
_NO_WILDCARDS = 0xA2


class Published(NamedTuple):
    """A message as it came."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int


class WillOf(NamedTuple):
    """What a login asks for in its will."""

    qos: int
    retain: bool


class FakeBroker:
    """Async context manager; inside it a broker listens on `port` that takes no subscription.

    Attributes:
        wills: of every login, in order.
        published: every message, in order.
        pings: how many came.
    """

    def __init__(
        self,
        on_login: Callable[[WillOf], bytes | None],
        on_publish: Callable[[Published], bytes | None],
        version: str = "5",
    ) -> None:
        """Prepare.

        Args:
            on_login: answers a login; None closes the connection, as no bytes do after a message.
            on_publish: answers a message; a DISCONNECT also closes the connection.
            version: that the client speaks.
        """
        self.port = 0
        self.wills: list[WillOf] = []
        self.published: list[Published] = []
        self.pings = 0
        self._on_login = on_login
        self._on_publish = on_publish
        self._version = version
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (answer := self._answer(*await _packet(reader))) is not None:
                writer.write(answer)
                if answer[:1] == b"\xe0":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, first: int, body: bytes) -> bytes | None:
        kind = first >> 4
        if kind == _CONNECT:
            flags = body[7]
            self.wills.append(WillOf(flags >> 3 & 3, bool(flags & 0x20)))
            return self._on_login(self.wills[-1])
        if kind == _PUBLISH:
            self.published.append(self._read(first, body))
            return self._on_publish(self.published[-1])
        if kind == _SUBSCRIBE:
            return b"\x90\x04" + body[:2] + bytes((0, _NO_WILDCARDS))
        if kind == _PINGREQ:
            self.pings += 1
            return b"\xd0\x00"
        assert kind == _DISCONNECT
        return None

    def _read(self, first: int, body: bytes) -> Published:
        qos, end = first >> 1 & 3, 2 + int.from_bytes(body[:2])
        topic, rest = body[2:end].decode(), body[end:]
        packet_id = int.from_bytes(rest[:2]) if qos else 0
        rest = rest[2:] if qos else rest
        if self._version == "5":
            rest = rest[1 + rest[0] :]
        return Published(topic, rest, qos, bool(first & 1), packet_id)


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, length, shift = (await reader.readexactly(1))[0], 0, 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return first, await reader.readexactly(length)


def acknowledged(message: Published) -> bytes:
    """The answer to a message that is taken; nothing for QoS 0."""
    return b"\x40\x02" + message.packet_id.to_bytes(2) if message.qos else b""


def denied(message: Published, code: mqtt5.PubAckReasonCode) -> bytes:
    """The answer of version 5 to a message that is not taken."""
    return mqtt5.PubAckPacket(message.packet_id, reason_code=code).write()


ACCEPTED_311 = b"\x20\x02\x00\x00"


def always(answer: bytes) -> Callable[[WillOf], bytes]:
    """Every login is answered so."""

    def reply(_: WillOf) -> bytes:
        return answer

    return reply
