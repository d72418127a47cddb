"""MQTT packets as a publisher needs them, versions 5 and 3.1.1. No I/O, no clock.

Version 5 is encoded by the `mqtt5` library. Version 3.1.1 (OASIS standard, 29 October 2014) is the
same protocol without properties and reason codes, and small enough to be written down here.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, Protocol

import mqtt5

from daemon.mqtt.limits import EVERYTHING, Limits
from daemon.mqtt.refusals import ONLY_311, Refused, refused_5, refused_311, words
from model.core.errors import BrokerError

_CONNACK, _PUBACK, _PINGRESP, _DISCONNECT, _AUTH = 2, 4, 13, 14, 15
_FOR_PUBLISHERS: Final = (_CONNACK, _PUBACK, _PINGRESP, _DISCONNECT, _AUTH)
_CONNACK_311: Final = bytes((0x20, 2))
"""How a CONNACK of version 3.1.1 begins; one of version 5 is longer."""

_LARGEST: Final = 65_536
"""Nothing that a broker sends to a mere publisher is longer."""

_FAILED: Final = 0x80
"""Reason codes from here on are failures."""


class Login(NamedTuple):
    """What a connection begins with.

    Attributes:
        client_id: unique at the broker.
        username: None for anonymous.
        password: None for none.
        keepalive_s: the broker gives up a client that was silent for one and a half times as long.
        will_topic: where the broker says that the connection was lost.
        will: what it says, retained and with QoS 1 within the limits.
        limits: what may be asked of the broker.
    """

    client_id: str
    username: str | None
    password: str | None
    keepalive_s: int
    will_topic: str
    will: bytes
    limits: Limits = EVERYTHING


class Accepted(NamedTuple):
    """The broker lets us in.

    Attributes:
        receive_maximum: QoS 1 messages that may be under way to it.
        keepalive_s: its own wish; None if it has none.
        largest: bytes of the longest packet that it takes; None if it sets no limit.
        limits: what else may be asked of it.
    """

    receive_maximum: int
    keepalive_s: int | None
    largest: int | None = None
    limits: Limits = EVERYTHING


class Acked(NamedTuple):
    """The broker has a QoS 1 message, or (``denied`` says why) will not have it."""

    packet_id: int
    denied: str | None


Event = Accepted | Refused | Acked | None


class Codec(Protocol):
    """One protocol version."""

    expires: bool
    """Whether a message can carry its expiry, so that retaining it is safe."""

    def connect(self, login: Login) -> bytes:
        """The packet that opens a connection with a clean start."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        packet_id: int | None,
        *,
        retain: bool,
        expiry_s: int | None,
    ) -> bytes:
        """A message; QoS 1 with a packet id, QoS 0 without."""

    def read(self, buffer: memoryview) -> tuple[Event, int]:
        """Decode the first packet: what it says, if it concerns a publisher, and its length.

        Raises:
            IndexError: the buffer ends within the packet.
            BrokerError: this is not MQTT.
        """


PING: Final = b"\xc0\x00"
"""PINGREQ, alike in both versions."""

DISCONNECT: Final = b"\xe0\x00"
"""DISCONNECT with normal reason, alike in both versions: the will is discarded."""


PLAIN_ACK_SIZE: Final = 4


def plain_acks(buffer: memoryview) -> list[int]:
    """The packet ids of the acknowledgements at the beginning that say nothing but success.

    Alike in both versions: type 0x40, length 2, packet id. Whatever the broker took is answered
    so, hundreds at a time, four bytes each.

    >>> plain_acks(memoryview(bytes.fromhex("40020001 40020102 4003000387 4002")))
    [1, 258]
    """
    ids, at = [], 0
    while at + PLAIN_ACK_SIZE <= len(buffer) and buffer[at] == 0x40 and buffer[at + 1] == 2:  # noqa: PLR2004
        ids.append(buffer[at + 2] << 8 | buffer[at + 3])
        at += PLAIN_ACK_SIZE
    return ids


class Codec5:
    """MQTT 5."""

    expires = True

    def connect(self, login: Login) -> bytes:
        """See `Codec`."""
        will = mqtt5.Will(
            login.will_topic,
            payload=login.will,
            qos=mqtt5.QoS(login.limits.qos),
            retain=login.limits.retains,
        )
        return mqtt5.ConnectPacket(
            login.client_id,
            username=login.username,
            password=None if login.password is None else login.password.encode(),
            clean_start=True,
            will=will,
            keep_alive=login.keepalive_s,
        ).write()

    def publish(
        self,
        topic: str,
        payload: bytes,
        packet_id: int | None,
        *,
        retain: bool,
        expiry_s: int | None,
    ) -> bytes:
        """See `Codec`."""
        return mqtt5.PublishPacket(
            topic,
            payload,
            qos=mqtt5.QoS.AT_MOST_ONCE if packet_id is None else mqtt5.QoS.AT_LEAST_ONCE,
            retain=retain,
            packet_id=packet_id,
            message_expiry_interval=expiry_s,
        ).write()

    def read(self, buffer: memoryview) -> tuple[Event, int]:
        """See `Codec`."""
        length = _whole_packet(buffer, "5")[1]
        if bytes(buffer[:2]) == _CONNACK_311 and buffer[3]:
            return ONLY_311, length
        # The library would end the process over some packets that no publisher is sent.
        if buffer[0] >> 4 not in _FOR_PUBLISHERS:
            msg = "the MQTT broker sends what nobody asked for"
            raise BrokerError(msg)
        try:
            packet, _ = mqtt5.read(buffer[:length])
        except (ValueError, IndexError) as error:
            msg = f"the MQTT broker sends what is not MQTT 5: {error}"
            raise BrokerError(msg) from None
        return self._event(packet), length

    def _event(self, packet: object) -> Event:
        if isinstance(packet, mqtt5.PubAckPacket):
            code = packet.reason_code
            return Acked(packet.packet_id, words(code) if int(code) >= _FAILED else None)
        if isinstance(packet, mqtt5.ConnAckPacket):
            if packet.reason_code == mqtt5.ConnAckReasonCode.SUCCESS:
                return Accepted(
                    packet.receive_max,
                    packet.server_keep_alive,
                    packet.max_packet_size,
                    Limits(min(int(packet.max_qos), 1), packet.retain_available),
                )
            return _refused(packet, login=True)
        if isinstance(packet, mqtt5.DisconnectPacket):
            return _refused(packet, login=False)
        return None


def _refused(packet: mqtt5.ConnAckPacket | mqtt5.DisconnectPacket, *, login: bool) -> Refused:
    return refused_5(
        packet.reason_code,
        login=login,
        reference=packet.server_reference,
        said=packet.reason_str,
    )


class Codec311:
    """MQTT 3.1.1."""

    expires = False

    def connect(self, login: Login) -> bytes:
        """See `Codec`."""
        clean, with_will = 0x02, 0x04
        flags = clean | with_will | login.limits.qos << 3 | login.limits.retains << 5
        fields = [login.client_id.encode(), login.will_topic.encode(), login.will]
        if login.username is not None:
            flags |= 0x80
            fields.append(login.username.encode())
            if login.password is not None:
                flags |= 0x40
                fields.append(login.password.encode())
        head = _field(b"MQTT") + bytes((4, flags)) + struct.pack("!H", login.keepalive_s)
        return _packet(0x10, head, *map(_field, fields))

    def publish(
        self,
        topic: str,
        payload: bytes,
        packet_id: int | None,
        *,
        retain: bool,
        expiry_s: int | None,
    ) -> bytes:
        """See `Codec`; the expiry has no place in this version."""
        del expiry_s
        name = _field(topic.encode())
        if packet_id is None:
            return _packet(0x30 | retain, name, payload)
        return _packet(0x32 | retain, name, struct.pack("!H", packet_id), payload)

    def read(self, buffer: memoryview) -> tuple[Event, int]:
        """See `Codec`."""
        start, end = _whole_packet(buffer, "3.1.1")
        body = bytes(buffer[start:end])
        kind = buffer[0] >> 4
        if kind in (_CONNACK, _PUBACK) and len(body) < 2:  # noqa: PLR2004 - both carry two bytes
            msg = "the MQTT broker sends what is not MQTT 3.1.1: a packet is too short"
            raise BrokerError(msg)
        event: Event = None
        if kind == _PUBACK:
            event = Acked(int.from_bytes(body[:2]), None)
        elif kind == _CONNACK:
            event = refused_311(body[1]) if body[1] else Accepted(65_535, None)
        return event, end


def _field(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def _packet(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length, rest = bytearray(), len(body)
    while True:
        rest, digit = divmod(rest, 128)
        length.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes((first,)) + bytes(length) + body


def _whole_packet(buffer: memoryview, version: str) -> tuple[int, int]:
    """Where the first packet's body begins and ends, by its fixed header.

    Raises:
        IndexError: the buffer ends before it does.
        BrokerError: it is longer than anything a publisher is sent.
    """
    value = 0
    for at in range(1, 5):
        value |= (buffer[at] & 0x7F) << 7 * (at - 1)
        if not buffer[at] & 0x80:
            end = at + 1 + value
            if value > _LARGEST:
                break
            if end > len(buffer):
                msg = "not enough bytes"
                raise IndexError(msg)
            return at + 1, end
    msg = f"the MQTT broker sends what is not MQTT {version}: a packet is too long"
    raise BrokerError(msg)
