"""One connection to an MQTT broker, as a publisher uses it: bursts out, acknowledgements in."""

from __future__ import annotations

import asyncio
import ssl
from math import inf
from typing import TYPE_CHECKING, cast

from daemon.mqtt.codec import (
    DISCONNECT,
    PING,
    PLAIN_ACK_SIZE,
    Accepted,
    Acked,
    Codec,
    Login,
    plain_acks,
)
from daemon.mqtt.limits import EVERYTHING, Limits
from daemon.mqtt.refusals import TOO_LARGE, Refused
from daemon.runtime.tls import describe_error
from model.core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from daemon.mqtt.outbox import Outgoing

_CONNECT_S = 10.0
_WRITE_LIMIT = 1 << 20
_PACKET_IDS = 65_535
_WANTED = {
    False: "TLS (mqtt.tls.ca_file)",
    True: "a certificate of ours (mqtt.tls.certificate_file)",
}


class LinkLostError(Exception):
    """The connection is gone; the message says why."""


class HungUpError(LinkLostError):
    """The broker closed the connection and did not say why."""


class LackingError(LinkLostError):
    """The broker lacks something that was asked for.

    Attributes:
        without: what it does take.
    """

    def __init__(self, reason: str, without: Limits) -> None:
        """Keep both."""
        super().__init__(reason)
        self.without = without


class LoginRefusedError(BrokerError):
    """The broker will not have us, and trying again cannot help.

    Attributes:
        advice: what to do.
    """

    def __init__(self, reason: str, advice: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.advice = advice


class MqttConnection(asyncio.Protocol):
    """Sends messages without waiting for each, and reports each acknowledgement.

    QoS 1 messages are bounded by the broker's receive maximum: `room` says how many more may be
    sent now, and `on_room` is called when there is room again.

    Attributes:
        lost: done, with a `LinkLostError`, when the connection is gone.
        keepalive_s: after so many silent seconds a `ping` is due.
        heard: whether anything has come from the broker since the last `ping`.
        stuck: whether messages were under way at the last `ping` and none was answered since.
        limits: what may be asked of the broker.
        largest: bytes of the longest packet that it takes.
        answered: whether it has acknowledged or denied a message.
    """

    def __init__(
        self,
        codec: Codec,
        on_taken: Callable[[Sequence[tuple[Outgoing, float]]], None],
        on_denied: Callable[[Outgoing, str], None],
        on_room: Callable[[], None],
    ) -> None:
        """Prepare; `open_link` connects.

        Args:
            codec: the protocol version.
            on_taken: called with the messages that the broker has, and when each was sent; those
                of QoS 0 count as soon as they are sent.
            on_denied: told of one that it denies, and why.
            on_room: told when messages may be sent again after `room` was 0.
        """
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.keepalive_s = 0
        self.heard = True
        self.stuck = False
        self.limits = EVERYTHING
        self.largest = inf
        self.answered = False
        self._codec = codec
        self._on_taken = on_taken
        self._on_denied = on_denied
        self._on_room = on_room
        self._accepted: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""
        self._under_way: dict[int, tuple[Outgoing, float]] = {}
        self._packet_id = 0
        self._most = 0
        self._paused = False

    @property
    def room(self) -> int:
        """How many QoS 1 messages may be sent now."""
        return 0 if self._paused else self._most - len(self._under_way)

    async def login(self, login: Login) -> None:
        """Introduce ourselves and wait for the broker's answer.

        Raises:
            LoginRefusedError: for good.
            LinkLostError: for now.
        """
        self._write(self._codec.connect(login))
        accepted = await self._accepted
        self._most = min(accepted.receive_maximum, _PACKET_IDS)
        self.largest = accepted.largest or inf
        self.limits = accepted.limits.within(login.limits)
        # Looking more often than the broker asks is allowed; a dead one is to be noticed in time.
        self.keepalive_s = min(accepted.keepalive_s or login.keepalive_s, login.keepalive_s)

    def send(self, messages: Iterable[tuple[Outgoing, int | None]], now_s: float) -> None:
        """Send messages with their expiry in seconds, in one write; heed `room` before.

        One that is larger than the broker takes is not sent: it would end the connection.
        """
        packets, unanswered = [], []
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
            if len(packet) <= self.largest:
                packets.append(packet)
                if packet_id is None:
                    unanswered.append((message, now_s))
                continue
            if packet_id is not None:
                del self._under_way[packet_id]
            self._on_denied(message, TOO_LARGE)
        self._write(b"".join(packets))
        if unanswered:
            self._on_taken(unanswered)

    def ping(self) -> None:
        """Show the broker that we are alive, and ask the same of it."""
        self.heard = False
        self.stuck = bool(self._under_way)
        self._write(PING)

    def close(self) -> None:
        """Say goodbye, so that the will is not sent, and close."""
        if self._transport is not None:
            self._write(DISCONNECT)
            self._transport.close()
            self._transport = None

    def abort(self, reason: str) -> None:
        """Give up a connection that does not answer."""
        self._fail(LinkLostError(reason))

    def _register(self, message: Outgoing, now_s: float) -> int:
        while True:
            self._packet_id = self._packet_id % _PACKET_IDS + 1
            if self._packet_id not in self._under_way:
                self._under_way[self._packet_id] = message, now_s
                return self._packet_id

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_LIMIT)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: read every whole packet."""
        self.heard = True
        had_room = self.room > 0
        buffer = memoryview(self._buffer + data if self._buffer else data)
        at = 0
        try:
            while at < len(buffer):
                if ids := plain_acks(buffer[at:]):
                    at += len(ids) * PLAIN_ACK_SIZE
                    self._taken(ids)
                    continue
                event, length = self._codec.read(buffer[at:])
                at += length
                self._take(event)
        except IndexError:
            pass
        except BrokerError as error:
            self._fail(LinkLostError(str(error)))
        self._buffer = bytes(buffer[at:])
        if not had_room and self.room > 0:
            self._on_room()

    def _take(self, event: Accepted | Refused | Acked | None) -> None:
        if isinstance(event, Acked):
            if event.denied is None:
                self._taken([event.packet_id])
            elif (known := self._under_way.pop(event.packet_id, None)) is not None:
                self.stuck, self.answered = False, True
                self._on_denied(known[0], event.denied)
        elif isinstance(event, Accepted):
            if not self._accepted.done():
                self._accepted.set_result(event)
        elif isinstance(event, Refused):
            self._fail(_refusal(event))

    def _taken(self, packet_ids: Iterable[int]) -> None:
        answers = (self._under_way.pop(packet_id, None) for packet_id in packet_ids)
        self._on_taken([known for known in answers if known is not None])
        self.stuck, self.answered = False, True

    def pause_writing(self) -> None:
        """Called by the event loop: the broker reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._paused = False
        self._on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if isinstance(exc, ssl.SSLError):
            self._fail(LinkLostError(describe_error(exc)))
        else:
            self._fail(HungUpError(str(exc) if exc else "the broker closed the connection"))

    def _fail(self, error: Exception) -> None:
        for future in (self._accepted, self.lost):
            if not future.done():
                future.set_exception(error)
                # Whoever waits sees it; nobody has to.
                future.exception()
        if self._transport is not None:
            self._transport.abort()
            # uvloop does not forgive a later write.
            self._transport = None


def _refusal(event: Refused) -> Exception:
    if event.final:
        return LoginRefusedError(event.reason, event.advice)
    if event.without is not None:
        return LackingError(event.reason, event.without)
    return LinkLostError(f"{event.reason}; {event.advice}" if event.advice else event.reason)


async def open_link(
    address: tuple[str, int], login: Login, link: MqttConnection, tls: ssl.SSLContext | None = None
) -> None:
    """Connect ``link`` and log in.

    Raises:
        LackingError: the login asks for what the broker does not offer.
        LinkLostError: the broker cannot be reached or does not answer.
        LoginRefusedError: it refuses us for good.
    """
    try:
        async with asyncio.timeout(_CONNECT_S):
            await asyncio.get_running_loop().create_connection(lambda: link, *address, ssl=tls)
            await link.login(login)
    except TimeoutError:
        link.abort("no answer")
        msg = f"no answer within {_CONNECT_S:g} s"
        raise LinkLostError(msg) from None
    except HungUpError as error:
        msg = f"{error} before it had let us in; does it want {_WANTED[tls is not None]}?"
        raise HungUpError(msg) from None
    except ssl.SSLError as error:
        raise LinkLostError(describe_error(error)) from None
    except OSError as error:
        raise LinkLostError(error.strerror or str(error)) from None
