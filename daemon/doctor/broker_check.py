"""Whether the broker takes this daemon's messages, tried on a topic of its own."""

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

_PATIENCE_S: Final = 3.0
_SETTLE_S: Final = 1.0
_FORECAST_BYTES: Final = 2_000
"""A forecast has about half as many."""

_PAYLOAD: Final = b'{"schema":1}'
_CLOSED: Final = "it closed the connection"


class _Answer(NamedTuple):
    """What became of the messages.

    Attributes:
        denied: why the broker denied them, None if it took them.
        limits: what it offers.
        largest: bytes of the longest packet that it takes.
    """

    denied: str | None
    limits: Limits
    largest: float


async def examine_broker(broker: Broker, instance: str, clock: Clock) -> Finding:
    """Publish a message the way the daemon does, and read it back the way a consumer does."""
    address, topic = host_port(broker.host, broker.port), doctor_topic(instance)
    user = f"user {broker.username!r}" if broker.username else "anonymous clients"
    try:
        try:
            async with connect(broker) as reader:
                await reader.subscribe(topic, qos=1)
                answer = await _publish(broker, instance, clock)
                came_back = answer.denied is None and await _reads(reader, _PAYLOAD)
        except aiomqtt.MqttError:
            # Our own login says why, if it fails as well.
            answer, came_back = await _publish(broker, instance, clock), False
    except LoginRefusedError as error:
        return problem("broker", f"{address} refuses {user} ({error})", error.advice)
    except ConnectionLostError as error:
        return problem(
            "broker",
            f"no broker at {address} ({error})",
            "start it, or check mqtt.host, mqtt.port, mqtt.tls and the login",
        )
    if answer.denied is not None:
        text = f"{address} denies publishing to {topic} ({answer.denied})"
        allow = f"let {user} write to {ROOT}/#"
        if answer.denied != _CLOSED:
            allow = denial_advice(answer.denied, user, ROOT, _FORECAST_BYTES)
        return problem("broker", text, allow)
    if answer.largest < _FORECAST_BYTES:
        text = (
            f"{address} takes packets of {answer.largest:.0f} bytes at most; forecasts are longer"
        )
        return problem(
            "broker", text, f"let it take {_FORECAST_BYTES} bytes, better 200000 for batches"
        )
    return _judged(answer, address, user, broker.version, came_back=came_back)


def _judged(answer: _Answer, address: str, user: str, version: str, *, came_back: bool) -> Finding:
    """Judge a broker that took the messages."""
    more = "".join(
        f"; {text}"
        for text in (
            answer.limits.describe() and f"it {answer.limits.describe()}",
            f"packets of at most {answer.largest:.0f} bytes" if answer.largest < inf else "",
        )
        if text
    )
    if came_back:
        return ok("broker", f"{address} takes messages and hands them out{more}")
    if version == "5" and answer.limits.qos:
        # Its acknowledgement says so; who may read is another question.
        text = f"{address} takes messages; {user} may not read them, and need not{more}"
        return unknown("broker", text)
    did = "acknowledged" if answer.limits.qos else "was sent"
    text = f"{address} {did} a message, but did not hand it out"
    allow = f"let {user} write to {ROOT}/#, and read {ROOT}/doctor/#"
    return problem("broker", f"{text}{more}", allow)


async def _publish(broker: Broker, instance: str, clock: Clock) -> _Answer:
    """Send messages, with less and less asked of a broker that does not offer everything."""
    negotiation = Negotiation(max_closes=1)
    while True:
        try:
            answer = await _publish_within(negotiation.limits, broker, instance, clock)
        except UnsupportedFeatureError as error:
            if not negotiation.on_unsupported(error.supported):
                raise
        except ClosedByBrokerError:
            if not negotiation.on_closed_early():
                raise
        else:
            if answer.denied != _CLOSED or not negotiation.on_closed_early():
                return answer


async def _publish_within(limits: Limits, broker: Broker, instance: str, clock: Clock) -> _Answer:
    """Send one message, and another that asks to be retained and is empty, so that nothing stays.

    Raises:
        UnsupportedFeatureError: the broker lacks something of the limits.
        ConnectionLostError: it cannot be reached.
        LoginRefusedError: it refuses the login.
    """
    answers = _Answers()
    link = MqttConnection(
        Codec5() if broker.version == "5" else Codec311(),
        answers.on_acknowledged,
        answers.on_denied,
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
                denied = await answers.to(message, link, clock.monotonic())
        return _Answer(denied, link.limits, link.max_packet_bytes)
    finally:
        link.close()


class _Answers:
    """The broker's answers, one message at a time."""

    def __init__(self) -> None:
        self._next: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def on_acknowledged(self, messages: Sequence[tuple[Outgoing, float]]) -> None:
        """For `MqttConnection`."""
        if messages and not self._next.done():
            self._next.set_result(None)

    def on_denied(self, _: Outgoing, reason: str) -> None:
        """For `MqttConnection`."""
        if not self._next.done():
            self._next.set_result(reason)

    async def to(self, message: Outgoing, link: MqttConnection, now_s: float) -> str | None:
        """Send a message; why the broker denied it, None if it took it.

        Raises:
            UnsupportedFeatureError: the broker lacks something that was asked for.
        """
        self._next = asyncio.get_running_loop().create_future()
        link.send([(message, None)], now_s)
        await asyncio.wait(
            (self._next, link.lost), timeout=_PATIENCE_S, return_when="FIRST_COMPLETED"
        )
        if not link.limits.qos:
            # Nothing is acknowledged; a broker that does not take it closes the connection.
            await asyncio.wait((link.lost,), timeout=_SETTLE_S)
        if not link.lost.done():
            return self._next.result() if self._next.done() else "it does not acknowledge"
        error = link.lost.exception()
        if isinstance(error, UnsupportedFeatureError):
            raise error
        # Brokers of version 3.1.1 have no other way to say no.
        return _CLOSED


async def _reads(reader: aiomqtt.Client, payload: bytes) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for message in reader.messages:
                if message.payload == payload:
                    return True
    except TimeoutError:
        pass
    return False
