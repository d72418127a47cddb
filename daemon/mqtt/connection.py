"""Hold one MQTT connection: send bursts of messages and report each acknowledgement.

It is written by hand because aiomqtt awaits every message: 115 µs of processor time each, against
10.6 µs here (docs/performance.md). gmqtt needs 8.0 µs but hides why a message was denied.
"""

from __future__ import annotations

import asyncio
import ssl
from math import inf
from typing import TYPE_CHECKING, cast

from daemon.mqtt.codec import (
    DISCONNECT,
    PING,
    PLAIN_ACK_BYTES,
    Accepted,
    Acked,
    Codec,
    Login,
    plain_acks,
)
from daemon.mqtt.errors import (
    ClosedByBrokerError,
    ConnectionLostError,
    LoginRefusedError,
    UnsupportedFeatureError,
)
from daemon.mqtt.limits import NO_LIMITS
from daemon.mqtt.refusals import TOO_LARGE, Refusal
from daemon.runtime.tls import describe_error
from model.core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from daemon.mqtt.outbox import Outgoing

_CONNECT_TIMEOUT_S = 10.0
_MAX_WRITE_BUFFER_BYTES = 1 << 20
_MAX_PACKET_ID = 65_535
_TLS_ADVICE = {
    False: "TLS (mqtt.tls.ca_file)",
    True: "a certificate of ours (mqtt.tls.certificate_file)",
}


class MqttConnection(asyncio.Protocol):
    """Sends messages without waiting for each, and reports each acknowledgement.

    Unacknowledged QoS 1 messages are limited by the broker's receive maximum: `send_quota` is how
    many more may be sent now, and `on_writable` is called when it is above 0 again.

    Attributes:
        lost: done, with a `ConnectionLostError`, when the connection is lost.
        keepalive_s: a `ping` is due after so many seconds without other packets.
        received_since_ping: whether the broker has sent anything since the last `ping`.
        stalled: whether messages were in flight at the last `ping` and none was answered since.
        limits: which features of the broker may be used.
        max_packet_bytes: the longest packet that the broker accepts.
        answered: whether the broker has acknowledged or denied a message.
    """

    def __init__(
        self,
        codec: Codec,
        on_acknowledged: Callable[[Sequence[tuple[Outgoing, float]]], None],
        on_denied: Callable[[Outgoing, str], None],
        on_writable: Callable[[], None],
    ) -> None:
        """Prepare; `open_connection` connects.

        Args:
            codec: the protocol version.
            on_acknowledged: called with the messages that the broker has accepted, and when each
                was sent (monotonic seconds); QoS 0 messages count as soon as they are sent.
            on_denied: called with a message that the broker denies, and the reason.
            on_writable: called when messages may be sent again after `send_quota` was 0.
        """
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.keepalive_s = 0
        self.received_since_ping = True
        self.stalled = False
        self.limits = NO_LIMITS
        self.max_packet_bytes = inf
        self.answered = False
        self._codec = codec
        self._on_acknowledged = on_acknowledged
        self._on_denied = on_denied
        self._on_writable = on_writable
        self._accepted: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.WriteTransport | None = None
        # The beginning of a packet whose end has not arrived.
        self._buffer = b""
        # Unacknowledged messages and when they were sent, by packet id.
        self._in_flight: dict[int, tuple[Outgoing, float]] = {}
        self._packet_id = 0
        self._receive_maximum = 0
        # Whether the transport's write buffer is full.
        self._paused = False

    @property
    def send_quota(self) -> int:
        """How many QoS 1 messages may be sent now."""
        return 0 if self._paused else self._receive_maximum - len(self._in_flight)

    async def login(self, login: Login) -> None:
        """Log in and wait for the broker's answer.

        Raises:
            LoginRefusedError: the broker refuses the login permanently.
            ConnectionLostError: it refuses it for now, or the connection is lost.
        """
        self._write(self._codec.connect(login))
        accepted = await self._accepted
        self._receive_maximum = min(accepted.receive_maximum, _MAX_PACKET_ID)
        self.max_packet_bytes = accepted.max_packet_bytes or inf
        self.limits = accepted.limits.within(login.limits)
        # Pinging more often than the broker demands is allowed and detects a dead one in time.
        self.keepalive_s = min(accepted.keepalive_s or login.keepalive_s, login.keepalive_s)

    def send(self, messages: Iterable[tuple[Outgoing, int | None]], now_s: float) -> None:
        """Send messages with their expiry in seconds, in one write.

        The caller sends no more than `send_quota` messages. One that is larger than the broker
        accepts is denied here: it would end the connection.
        """
        packets, sent_qos_0 = [], []
        for message, expiry_s in messages:
            packet_id = None
            if min(message.qos, self.limits.qos):
                packet_id = self._register(message, now_s)
            packet = self._codec.publish(
                message.topic,
                message.payload,
                packet_id,
                retain=message.retain and self.limits.retains,
                expiry_s=expiry_s,
            )
            if len(packet) <= self.max_packet_bytes:
                packets.append(packet)
                if packet_id is None:
                    sent_qos_0.append((message, now_s))
                continue
            if packet_id is not None:
                del self._in_flight[packet_id]
            self._on_denied(message, TOO_LARGE)
        self._write(b"".join(packets))
        if sent_qos_0:
            self._on_acknowledged(sent_qos_0)

    def ping(self) -> None:
        """Send a PINGREQ, which the broker has to answer."""
        self.received_since_ping = False
        self.stalled = bool(self._in_flight)
        self._write(PING)

    def close(self) -> None:
        """Send a DISCONNECT, which makes the broker discard the will, and close."""
        if self._transport is not None:
            self._write(DISCONNECT)
            self._transport.close()
            self._transport = None

    def abort(self, reason: str) -> None:
        """Drop a connection that does not answer."""
        self._fail(ConnectionLostError(reason))

    def _register(self, message: Outgoing, now_s: float) -> int:
        while True:
            self._packet_id = self._packet_id % _MAX_PACKET_ID + 1
            if self._packet_id not in self._in_flight:
                self._in_flight[self._packet_id] = message, now_s
                return self._packet_id

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop: the transport is connected."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=_MAX_WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: read every whole packet."""
        self.received_since_ping = True
        was_writable = self.send_quota > 0
        buffer = memoryview(self._buffer + data if self._buffer else data)
        at = 0
        try:
            while at < len(buffer):
                if ids := plain_acks(buffer[at:]):
                    at += len(ids) * PLAIN_ACK_BYTES
                    self._acknowledge(ids)
                    continue
                event, length = self._codec.read(buffer[at:])
                at += length
                self._handle_event(event)
        except IndexError:
            pass
        except BrokerError as error:
            self._fail(ConnectionLostError(str(error)))
        self._buffer = bytes(buffer[at:])
        if not was_writable and self.send_quota > 0:
            self._on_writable()

    def _handle_event(self, event: Accepted | Refusal | Acked | None) -> None:
        if isinstance(event, Acked):
            if event.denied is None:
                self._acknowledge([event.packet_id])
            elif (entry := self._in_flight.pop(event.packet_id, None)) is not None:
                self.stalled, self.answered = False, True
                self._on_denied(entry[0], event.denied)
        elif isinstance(event, Accepted):
            if not self._accepted.done():
                self._accepted.set_result(event)
        elif isinstance(event, Refusal):
            self._fail(_error_of(event))

    def _acknowledge(self, packet_ids: Iterable[int]) -> None:
        answers = (self._in_flight.pop(packet_id, None) for packet_id in packet_ids)
        self._on_acknowledged([entry for entry in answers if entry is not None])
        self.stalled, self.answered = False, True

    def pause_writing(self) -> None:
        """Called by the event loop: the write buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Called by the event loop: the write buffer has space again."""
        self._paused = False
        self._on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop: the transport is closed."""
        if isinstance(exc, ssl.SSLError):
            self._fail(ConnectionLostError(describe_error(exc)))
        else:
            self._fail(ClosedByBrokerError(str(exc) if exc else "the broker closed the connection"))

    def _fail(self, error: Exception) -> None:
        for future in (self._accepted, self.lost):
            if not future.done():
                future.set_exception(error)
                # Marks the error as retrieved: asyncio logs one that no task awaits.
                future.exception()
        if self._transport is not None:
            self._transport.abort()
            # uvloop raises on a later write.
            self._transport = None


def _error_of(event: Refusal) -> Exception:
    if event.permanent:
        return LoginRefusedError(event.reason, event.advice)
    if event.supported is not None:
        return UnsupportedFeatureError(event.reason, event.supported)
    return ConnectionLostError(f"{event.reason}; {event.advice}" if event.advice else event.reason)


async def open_connection(
    address: tuple[str, int],
    login: Login,
    connection: MqttConnection,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Connect to an address (host, port) and log in.

    Raises:
        UnsupportedFeatureError: the login uses a feature that the broker does not support.
        ConnectionLostError: the broker cannot be reached or does not answer.
        LoginRefusedError: it refuses the login permanently.
    """
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().create_connection(
                lambda: connection, *address, ssl=tls
            )
            await connection.login(login)
    except TimeoutError:
        connection.abort("no answer")
        msg = f"no answer within {_CONNECT_TIMEOUT_S:g} s"
        raise ConnectionLostError(msg) from None
    except ClosedByBrokerError as error:
        msg = f"{error} before it accepted the login; does it want {_TLS_ADVICE[tls is not None]}?"
        raise ClosedByBrokerError(msg) from None
    except ssl.SSLError as error:
        raise ConnectionLostError(describe_error(error)) from None
    except OSError as error:
        raise ConnectionLostError(error.strerror or str(error)) from None
