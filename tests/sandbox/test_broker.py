from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from daemon.sandbox.broker import EmbeddedBroker
from model.core.errors import BrokerError
from tests.support.servers import MAX_WAIT_S, accepts


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


def connect(broker: EmbeddedBroker, will: aiomqtt.Will | None = None) -> aiomqtt.Client:
    version = aiomqtt.ProtocolVersion.V5
    return aiomqtt.Client(broker.host, broker.port, protocol=version, will=will, timeout=MAX_WAIT_S)


async def expect(client: aiomqtt.Client, count: int) -> list[aiomqtt.Message]:
    messages: list[aiomqtt.Message] = []
    async with asyncio.timeout(MAX_WAIT_S):
        async for message in client.messages:
            messages.append(message)
            if len(messages) == count:
                break
    return messages


async def test_a_new_subscriber_gets_the_newest_retained_message(broker: EmbeddedBroker) -> None:
    async with connect(broker) as client:
        for payload in ("old", "new"):
            await client.publish("retained/x", payload, qos=1, retain=True)
    async with connect(broker) as client:
        await client.subscribe("retained/#", qos=1)
        (message,) = await expect(client, 1)
    assert (message.payload, message.retain, message.qos) == (b"new", True, 1)


async def test_an_expired_message_is_gone_and_a_cleared_one_too(broker: EmbeddedBroker) -> None:
    expiry = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    expiry.MessageExpiryInterval = 1
    async with connect(broker) as client:
        await client.publish("expiry/a", "short", qos=1, retain=True, properties=expiry)
        await client.publish("expiry/b", "cleared", qos=1, retain=True)
        await client.publish("expiry/b", b"", qos=1, retain=True)
        await client.publish("expiry/c", "kept", qos=1, retain=True)
        await asyncio.sleep(1.2)
    async with connect(broker) as client:
        await client.subscribe("expiry/#", qos=1)
        await client.publish("expiry/end", "end", qos=1)
        messages = await expect(client, 2)
    assert {message.payload for message in messages} == {b"kept", b"end"}


async def test_the_will_is_published_when_a_client_is_cut_off(broker: EmbeddedBroker) -> None:
    will = aiomqtt.Will("will/x", "offline", qos=1, retain=True)
    async with connect(broker) as witness:
        await witness.subscribe("will/#", qos=1)
        with suppress(aiomqtt.MqttError):
            async with connect(broker, will) as client:
                await client.publish("will/x", "online", qos=1, retain=True)
                sock = client._client.socket()  # noqa: SLF001 - cut the wire under the client
                assert isinstance(sock, socket.socket)
                sock.shutdown(socket.SHUT_RDWR)
        messages = await expect(witness, 2)
    assert [message.payload for message in messages] == [b"online", b"offline"]


async def test_a_burst_at_qos_1_arrives_whole_and_in_order(broker: EmbeddedBroker) -> None:
    async with connect(broker) as receiver, connect(broker) as sender:
        await receiver.subscribe("burst", qos=1)
        async with asyncio.TaskGroup() as group:
            arrived = group.create_task(expect(receiver, 200))
            for number in range(200):
                await sender.publish("burst", str(number), qos=1)
    assert [message.payload for message in arrived.result()] == [b"%d" % n for n in range(200)]


async def test_a_batch_of_a_hundred_forecasts_fits(broker: EmbeddedBroker) -> None:
    payload = os.urandom(200_000)
    async with connect(broker) as client:
        await client.subscribe("large", qos=0)
        await client.publish("large", payload, qos=0)
        (message,) = await expect(client, 1)
    assert message.payload == payload


def test_ctrl_c_does_not_reach_it_and_leaving_ends_it() -> None:
    with EmbeddedBroker() as broker:
        os.kill(broker.pid, signal.SIGINT)
        time.sleep(0.3)
        assert accepts(broker.port)
        pid = broker.pid
    assert not accepts(broker.port)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_taken_port_is_refused_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"did not start on 127.0.0.1:{port}"):
            EmbeddedBroker(port).__enter__()
