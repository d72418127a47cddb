"""A small MQTT broker with scripted answers: mosquitto does not send every packet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import mqtt5

from tests.support.loopback_server import LoopbackServer

_CONNECT, _PUBLISH, _SUBSCRIBE, _PINGREQ, _DISCONNECT = 1, 3, 8, 12, 14
_NO_WILDCARDS = 0xA2


class Published(NamedTuple):
    """A message that the broker received."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int


class Will(NamedTuple):
    """The will of a login."""

    qos: int
    retain: bool


class ScriptedBroker(LoopbackServer):
    """Answers logins and messages as given; it denies every subscription.

    Attributes:
        wills: of every login, in order.
        published: every message, in order.
        pings: how many were received.
    """

    def __init__(
        self,
        on_login: Callable[[Will], bytes | None],
        on_publish: Callable[[Published], bytes | None],
        version: str = "5",
    ) -> None:
        """Prepare.

        Args:
            on_login: answers a login; None closes the connection, as no bytes do after a message.
            on_publish: answers a message; a DISCONNECT also closes the connection.
            version: of the client.
        """
        super().__init__()
        self.wills: list[Will] = []
        self.published: list[Published] = []
        self.pings = 0
        self._on_login = on_login
        self._on_publish = on_publish
        self._version = version

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer packets until the script closes the connection."""
        while (answer := self._answer(*await _packet(reader))) is not None:
            writer.write(answer)
            if answer[:1] == b"\xe0":
                break

    def _answer(self, first: int, body: bytes) -> bytes | None:
        kind = first >> 4
        if kind == _CONNECT:
            flags = body[7]
            self.wills.append(Will(flags >> 3 & 3, bool(flags & 0x20)))
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
    """The acknowledgement of a message; empty for QoS 0."""
    return b"\x40\x02" + message.packet_id.to_bytes(2) if message.qos else b""


def denied(message: Published, code: mqtt5.PubAckReasonCode) -> bytes:
    """The acknowledgement of version 5 that denies a message."""
    return mqtt5.PubAckPacket(message.packet_id, reason_code=code).write()


ACCEPTED_311 = b"\x20\x02\x00\x00"


def always(answer: bytes) -> Callable[[Will], bytes]:
    """Answer every login with the same bytes."""

    def reply(_: Will) -> bytes:
        return answer

    return reply
