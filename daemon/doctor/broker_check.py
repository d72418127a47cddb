"""Check the MQTT broker with messages on a topic reserved for this check."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

import aiomqtt

from daemon.doctor.findings import Finding, ok, problem, unknown
from daemon.mqtt.codec import Codec5, Codec311, Login
from daemon.mqtt.connection import MqttConnection, open_connection
from daemon.mqtt.errors import (
    ClosedByBrokerError,
    ConnectionLostError,
    LoginRefusedError,
    UnsupportedFeatureError,
)
from daemon.mqtt.limits import Limits, Negotiation
from daemon.mqtt.outbox import Outgoing
from daemon.mqtt.refusals import denial_advice
from daemon.mqtt.topics import ROOT, doctor_topic
from daemon.runtime.address import host_port
from daemon.watch.subscriber import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.mqtt.broker import Broker
    from daemon.runtime.clock import Clock

_ANSWER_TIMEOUT_S: Final = 3.0
_QOS0_WAIT_S: Final = 1.0
"""How long a broker without QoS 1 gets to close the connection."""

_MIN_PACKET_BYTES: Final = 2_000
"""Required packet size, twice that of a forecast."""

_PAYLOAD: Final = b'{"schema":1}'
_CLOSED: Final = "it closed the connection"


class _Result(NamedTuple):
    """The result of publishing the messages.

    Attributes:
        denied: the broker's reason for denying them; None if it accepted them.
        limits: features that the broker supports.
        largest: the broker's maximum packet size, bytes.
    """

    denied: str | None
    limits: Limits
    largest: float


async def check_broker(broker: Broker, instance: str, clock: Clock) -> Finding:
    """Publish a message as the daemon does, and read it as a consumer does."""
    address, topic = host_port(broker.host, broker.port), doctor_topic(instance)
    user = f"user {broker.username!r}" if broker.username else "anonymous clients"
    try:
        try:
            async with connect(broker) as reader:
                await reader.subscribe(topic, qos=1)
                result = await _publish(broker, instance, clock)
                delivered = result.denied is None and await _receives(reader, _PAYLOAD)
        except aiomqtt.MqttError:
            # The reader's error has no details; if publishing fails too, its error is precise.
            result, delivered = await _publish(broker, instance, clock), False
    except LoginRefusedError as error:
        return problem("broker", f"{address} rejects {user} ({error})", error.advice)
    except ConnectionLostError as error:
        return problem(
            "broker",
            f"no broker at {address} ({error})",
            "start it, or check mqtt.host, mqtt.port, mqtt.tls and the login",
        )
    if result.denied is not None:
        text = f"{address} denies publishing to {topic} ({result.denied})"
        allow = f"allow {user} to write to {ROOT}/#"
        if result.denied != _CLOSED:
            allow = denial_advice(result.denied, user, ROOT, _MIN_PACKET_BYTES)
        return problem("broker", text, allow)
    if result.largest < _MIN_PACKET_BYTES:
        text = (
            f"{address} accepts packets of {result.largest:.0f} bytes at most; forecasts are longer"
        )
        return problem(
            "broker",
            text,
            f"raise its limit to at least {_MIN_PACKET_BYTES} bytes, or 200000 for batches",
        )
    return _judge(result, address, user, broker.version, delivered=delivered)


def _judge(result: _Result, address: str, user: str, version: str, *, delivered: bool) -> Finding:
    """Judge a broker that accepted the messages."""
    more = "".join(
        f"; {text}"
        for text in (
            result.limits.describe() and f"it {result.limits.describe()}",
            f"packets of at most {result.largest:.0f} bytes" if result.largest < inf else "",
        )
        if text
    )
    if delivered:
        return ok("broker", f"{address} accepts and delivers messages{more}")
    if version == "5" and result.limits.qos:
        text = f"{address} accepts messages; {user} may not read them, which is not required{more}"
        return unknown("broker", text)
    event = "acknowledged" if result.limits.qos else "was sent"
    text = f"{address} {event} a message, but did not deliver it"
    allow = f"allow {user} to write to {ROOT}/# and to read {ROOT}/doctor/#"
    return problem("broker", f"{text}{more}", allow)


async def _publish(broker: Broker, instance: str, clock: Clock) -> _Result:
    """Send the messages, with fewer features each time the broker lacks one."""
    negotiation = Negotiation(max_closes=1)
    while True:
        try:
            result = await _publish_within(negotiation.limits, broker, instance, clock)
        except UnsupportedFeatureError as error:
            if not negotiation.on_unsupported(error.supported):
                raise
        except ClosedByBrokerError:
            if not negotiation.on_closed_early():
                raise
        else:
            if result.denied != _CLOSED or not negotiation.on_closed_early():
                return result


async def _publish_within(limits: Limits, broker: Broker, instance: str, clock: Clock) -> _Result:
    """Send a message, then an empty retained one, which removes any retained message.

    Raises:
        UnsupportedFeatureError: the broker lacks a feature of the limits.
        ConnectionLostError: the broker cannot be reached.
        LoginRefusedError: the broker rejects the login.
    """
    acknowledgements = _Acknowledgements()
    link = MqttConnection(
        Codec5() if broker.version == "5" else Codec311(),
        acknowledgements.on_acknowledged,
        acknowledgements.on_denied,
        lambda: None,
    )
    topic = doctor_topic(instance)
    login = Login(
        client_id=f"candlecast-{instance}-doctor",
        username=broker.username,
        password=broker.password,
        keepalive_s=broker.keepalive_s,
        will_topic=topic,
        will=b"",
        limits=limits,
    )
    try:
        await open_connection((broker.host, broker.port), login, link, broker.tls)
        denied = None
        for payload, retain in ((_PAYLOAD, False), (b"", True)):
            if denied is None:
                message = Outgoing(topic, topic, payload, qos=1, retain=retain)
                denied = await acknowledgements.send(message, link, clock.monotonic())
        return _Result(denied, link.limits, link.max_packet_bytes)
    finally:
        link.close()


class _Acknowledgements:
    """Waits for the broker's acknowledgement of one message at a time."""

    def __init__(self) -> None:
        self._next: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def on_acknowledged(self, messages: Sequence[tuple[Outgoing, float]]) -> None:
        """Callback of `MqttConnection`."""
        if messages and not self._next.done():
            self._next.set_result(None)

    def on_denied(self, _: Outgoing, reason: str) -> None:
        """Callback of `MqttConnection`."""
        if not self._next.done():
            self._next.set_result(reason)

    async def send(self, message: Outgoing, link: MqttConnection, now_s: float) -> str | None:
        """Send a message; return the broker's reason for denying it, None if it accepted it.

        Raises:
            UnsupportedFeatureError: the broker lacks a requested feature.
        """
        self._next = asyncio.get_running_loop().create_future()
        link.send([(message, None)], now_s)
        await asyncio.wait(
            (self._next, link.lost), timeout=_ANSWER_TIMEOUT_S, return_when="FIRST_COMPLETED"
        )
        if not link.limits.qos:
            # Nothing is acknowledged; a broker that denies the message closes the connection.
            await asyncio.wait((link.lost,), timeout=_QOS0_WAIT_S)
        if not link.lost.done():
            return self._next.result() if self._next.done() else "it does not acknowledge"
        error = link.lost.exception()
        if isinstance(error, UnsupportedFeatureError):
            raise error
        # Closing the connection is the only way to deny a message in MQTT 3.1.1.
        return _CLOSED


async def _receives(reader: aiomqtt.Client, payload: bytes) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            async for message in reader.messages:
                if message.payload == payload:
                    return True
    except TimeoutError:
        pass
    return False
