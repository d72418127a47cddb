"""Encode and decode the MQTT packets of a publisher, versions 5 and 3.1.1. No I/O, no clock.

Version 5 is encoded by the `mqtt5` library. Version 3.1.1 (OASIS standard, 29 October 2014) and
plain acknowledgements are encoded by hand: a message with its acknowledgement costs 10.6 µs of
processor time, against 115 µs with aiomqtt (docs/performance.md). gmqtt needs 8.0 µs but does not
report why the broker denied a message.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, Protocol

import mqtt5

from daemon.mqtt.limits import NO_LIMITS, Limits
from daemon.mqtt.refusals import ONLY_311, Refusal, reason_text, refusal_5, refusal_311
from model.core.errors import BrokerError

_CONNACK, _PUBACK, _PINGRESP, _DISCONNECT, _AUTH = 2, 4, 13, 14, 15
_EXPECTED_TYPES: Final = (_CONNACK, _PUBACK, _PINGRESP, _DISCONNECT, _AUTH)
_CONNACK_311_PREFIX: Final = bytes((0x20, 2))
"""The first bytes of a CONNACK of version 3.1.1; one of version 5 is longer."""

_MAX_INCOMING_BYTES: Final = 65_536
"""A broker sends no longer packets to a client without subscriptions."""

_MIN_FAILURE_CODE: Final = 0x80
"""Reason codes from here on are failures."""


class Login(NamedTuple):
    """The contents of a CONNECT packet.

    Attributes:
        client_id: unique at the broker.
        username: None for anonymous.
        password: None for none.
        keepalive_s: the broker drops a client that sent nothing for one and a half times as long.
        will_topic: where the broker publishes that the connection was lost.
        will: the payload of that message, retained and with QoS 1 within the limits.
        limits: which features of the broker may be used.
    """

    client_id: str
    username: str | None
    password: str | None
    keepalive_s: int
    will_topic: str
    will: bytes
    limits: Limits = NO_LIMITS


class Accepted(NamedTuple):
    """The broker accepts the login.

    Attributes:
        receive_maximum: QoS 1 messages that may be unacknowledged at a time.
        keepalive_s: the keep-alive that it demands; None to keep the requested one.
        max_packet_bytes: the longest packet that it accepts; None if it sets no limit.
        limits: which features it supports.
    """

    receive_maximum: int
    keepalive_s: int | None
    max_packet_bytes: int | None = None
    limits: Limits = NO_LIMITS


class Acked(NamedTuple):
    """The broker has accepted a QoS 1 message, or denied it for the reason ``denied``."""

    packet_id: int
    denied: str | None


Event = Accepted | Refusal | Acked | None
"""A received packet; None for one that needs no action."""


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
        """Decode the first packet; returns its event and its length in bytes.

        Raises:
            IndexError: the buffer ends within the packet.
            BrokerError: this is not MQTT.
        """


PING: Final = b"\xc0\x00"
"""PINGREQ, alike in both versions."""

DISCONNECT: Final = b"\xe0\x00"
"""DISCONNECT with normal reason, alike in both versions: the will is discarded."""


PLAIN_ACK_BYTES: Final = 4


def plain_acks(buffer: memoryview) -> list[int]:
    """Decode the run of plain PUBACK packets at the beginning; returns their packet ids.

    A plain PUBACK reports success and is alike in both versions: type 0x40, length 2, packet id.
    Brokers send hundreds of them at a time, so they are decoded together.

    >>> plain_acks(memoryview(bytes.fromhex("40020001 40020102 4003000387 4002")))
    [1, 258]
    """
    ids, at = [], 0
    while at + PLAIN_ACK_BYTES <= len(buffer) and buffer[at] == 0x40 and buffer[at + 1] == 2:  # noqa: PLR2004
        ids.append(buffer[at + 2] << 8 | buffer[at + 3])
        at += PLAIN_ACK_BYTES
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
        if bytes(buffer[:2]) == _CONNACK_311_PREFIX and buffer[3]:
            return ONLY_311, length
        # The library ends the process over some packets that a publisher never receives.
        if buffer[0] >> 4 not in _EXPECTED_TYPES:
            msg = "the MQTT broker sends a packet of an unexpected type"
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
            return Acked(
                packet.packet_id, reason_text(code) if int(code) >= _MIN_FAILURE_CODE else None
            )
        if isinstance(packet, mqtt5.ConnAckPacket):
            if packet.reason_code == mqtt5.ConnAckReasonCode.SUCCESS:
                return Accepted(
                    packet.receive_max,
                    packet.server_keep_alive,
                    packet.max_packet_size,
                    Limits(min(int(packet.max_qos), 1), packet.retain_available),
                )
            return _refusal(packet, login=True)
        if isinstance(packet, mqtt5.DisconnectPacket):
            return _refusal(packet, login=False)
        return None


def _refusal(packet: mqtt5.ConnAckPacket | mqtt5.DisconnectPacket, *, login: bool) -> Refusal:
    return refusal_5(
        packet.reason_code,
        login=login,
        reference=packet.server_reference,
        explanation=packet.reason_str,
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
        """See `Codec`; this version cannot carry the expiry."""
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
            event = refusal_311(body[1]) if body[1] else Accepted(65_535, None)
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
    """Return where the first packet's body begins and ends, by its fixed header.

    Raises:
        IndexError: the buffer ends before it does.
        BrokerError: it is longer than any packet that a publisher receives.
    """
    value = 0
    for at in range(1, 5):
        value |= (buffer[at] & 0x7F) << 7 * (at - 1)
        if not buffer[at] & 0x80:
            end = at + 1 + value
            if value > _MAX_INCOMING_BYTES:
                break
            if end > len(buffer):
                msg = "not enough bytes"
                raise IndexError(msg)
            return at + 1, end
    msg = f"the MQTT broker sends what is not MQTT {version}: a packet is too long"
    raise BrokerError(msg)
