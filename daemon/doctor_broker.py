"""Whether the broker takes this daemon's messages, tried on a topic of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiomqtt

from daemon.findings import Finding, ill, unclear, well
from daemon.mqtt_codec import Codec5, Codec311, Login
from daemon.mqtt_link import Link, LinkLostError, LoginRefusedError, open_link
from daemon.outbox import Outgoing
from daemon.topics import ROOT, doctor_topic
from daemon.watch import connect

if TYPE_CHECKING:
    from daemon.clock import Clock
    from daemon.publisher import Broker

_PATIENCE_S: Final = 3.0


async def examine_broker(broker: Broker, instance: str, clock: Clock) -> Finding:
    """Publish a message the way the daemon does, and read it back the way a consumer does."""
    address, topic = f"{broker.host}:{broker.port}", doctor_topic(instance)
    user = f"user {broker.username!r}" if broker.username else "anonymous clients"
    payload = b'{"schema":1}'
    try:
        async with connect(broker) as reader:
            await reader.subscribe(topic, qos=1)
            denied = await _publish(broker, instance, payload, clock)
            came_back = denied is None and await _reads(reader, payload)
    except LoginRefusedError as error:
        return ill(
            "broker",
            f"{address} refuses {user} ({error})",
            "check mqtt.username and the password",
        )
    except (LinkLostError, aiomqtt.MqttError) as error:
        return ill(
            "broker",
            f"no broker at {address} ({error})",
            "start it, or check mqtt.host, mqtt.port, mqtt.tls and the login",
        )
    allow = f"let {user} write to {ROOT}/#"
    if denied is not None:
        return ill("broker", f"{address} denies publishing to {topic} ({denied})", allow)
    if came_back:
        return well("broker", f"{address} takes messages and hands them out")
    if broker.version == "5":
        # Its acknowledgement says so; who may read is another question.
        text = f"{address} takes messages; {user} may not read them, and need not"
        return unclear("broker", text)
    text = f"{address} acknowledged a message, but did not hand it out"
    return ill("broker", text, f"{allow}, and read {topic}")


async def _publish(broker: Broker, instance: str, payload: bytes, clock: Clock) -> str | None:
    """Send one message; why the broker denied it, None if it took it."""
    answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    codec = Codec5() if broker.version == "5" else Codec311()
    link = Link(
        codec,
        lambda taken: answer.set_result(None) if taken else None,
        lambda message, reason: answer.set_result(reason),  # noqa: ARG005
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
    )
    try:
        await open_link((broker.host, broker.port), login, link, broker.tls)
        message = Outgoing(topic, topic, payload, qos=1, retain=False)
        link.send([(message, None)], clock.monotonic())
        await asyncio.wait((answer, link.lost), timeout=_PATIENCE_S, return_when="FIRST_COMPLETED")
        if link.lost.done():
            # Brokers of version 3.1.1 have no other way to say no.
            return "it closed the connection"
        return answer.result() if answer.done() else "it does not acknowledge"
    finally:
        link.close()


async def _reads(reader: aiomqtt.Client, payload: bytes) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for message in reader.messages:
                if message.payload == payload:
                    return True
    except TimeoutError:
        pass
    return False
