"""The publisher against brokers that lack retained messages or QoS 1."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiomqtt
import mqtt5
import pytest

from model.core.errors import BrokerError
from tests.faults.proxy import FaultProxy
from tests.support.publisher_harness import STATUS, PublisherHarness, running, wait_connected
from tests.support.scripted_broker import (
    ACCEPTED_311,
    Published,
    ScriptedBroker,
    Will,
    acknowledged,
    always,
    denied,
)
from tests.support.servers import HOST, MAX_WAIT_S, mosquitto
from tests.support.waiting import until

NO_RETAIN, QOS_0, QOS_1 = "retain_available false", "max_qos 0", "max_qos 1"
NO_RETAIN_MESSAGE, QOS_0_MESSAGE = "keeps no retained messages", "takes QoS 0 only"


class ReceivedTexts:
    """What a subscriber has been sent: states and forecasts, in order."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def take(self, message: aiomqtt.Message) -> None:
        text = bytes(message.payload).decode()
        self.texts.append(json.loads(text)["state"] if message.topic.matches(STATUS) else text)

    async def until(self, *texts: str) -> None:
        """Wait until these have come, in this order; they are forgotten then."""
        for text in texts:
            await until(partial(self.texts.__contains__, text))
            del self.texts[: self.texts.index(text) + 1]


@asynccontextmanager
async def listening(port: int) -> AsyncIterator[ReceivedTexts]:
    """A subscriber that needs no retained message to know that it has subscribed."""
    received = ReceivedTexts()
    async with (
        aiomqtt.Client(HOST, port, protocol=aiomqtt.ProtocolVersion.V5) as client,
        asyncio.TaskGroup() as group,
    ):
        await client.subscribe("candlecast/#", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                received.take(message)

        task = group.create_task(listen())
        yield received
        task.cancel()


def log_count(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("lacking", [(NO_RETAIN,), (QOS_0,), (NO_RETAIN, QOS_0), (QOS_1,)])
async def test_forecasts_status_and_will_arrive_without_optional_broker_features(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: str, lacking: tuple[str, ...]
) -> None:
    guessed = version == "3.1.1" and QOS_0 in lacking
    with mosquitto(tmp_path, *lacking) as server:
        async with (
            listening(server.port) as received,
            FaultProxy(server.port, random.Random(1)) as proxy,
            running(PublisherHarness(proxy.port, version=version)) as trial,
        ):
            trial.publisher.offer(trial.forecast("A/B", "there"))
            await received.until("there")
            await until(lambda: trial.outcome("published") == 1)
            trial.publisher.announce("online", (), "v1")
            await received.until("online")
            if NO_RETAIN in lacking:
                # A later subscriber must receive it as well.
                await received.until("online")
            await until(lambda: log_count(caplog, QOS_0_MESSAGE) == (QOS_0 in lacking))
            await until(
                lambda: log_count(caplog, NO_RETAIN_MESSAGE) == (NO_RETAIN in lacking or guessed)
            )
            proxy.cut()
            await received.until("offline", "online")
            await trial.publisher.shutdown(5.0)
            await received.until("stopping", "offline")
    assert log_count(caplog, NO_RETAIN_MESSAGE) == (NO_RETAIN in lacking or guessed)
    assert log_count(caplog, QOS_0_MESSAGE) == (QOS_0 in lacking)


async def test_retained_messages_are_used_again_when_the_broker_supports_them(
    tmp_path: Path,
) -> None:
    with mosquitto(tmp_path, NO_RETAIN) as server:
        async with running(PublisherHarness(server.port)) as trial:
            trial.publisher.offer(trial.forecast("A/B", "there"))
            await until(lambda: trial.outcome("published") == 1)
            server.kill()
            await until(lambda: not trial.publisher.connected.is_set())
            server.configure()
            server.start()
            trial.publisher.announce("online", (), None)
            await wait_connected(trial)
            await trial.publisher.shutdown(5.0)
        async with listening(server.port) as later:
            await later.until("offline")


@asynccontextmanager
async def published_to(
    on_login: Callable[[Will], bytes | None],
    on_publish: Callable[[Published], bytes | None],
    version: str = "5",
    keepalive_s: int = 30,
) -> AsyncIterator[tuple[ScriptedBroker, PublisherHarness]]:
    """A running publisher at a broker that answers so."""
    async with (
        ScriptedBroker(on_login, on_publish, version) as broker,
        running(PublisherHarness(broker.port, version=version, keepalive_s=keepalive_s)) as trial,
    ):
        yield broker, trial


def accepting(**announced: object) -> Callable[[Will], bytes]:
    return always(mqtt5.ConnAckPacket(**announced).write())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("announced", "qos", "retain"),
    [
        ({}, 1, True),
        ({"retain_available": False}, 1, False),
        ({"max_qos": mqtt5.QoS.AT_MOST_ONCE}, 0, True),
        ({"max_qos": mqtt5.QoS.AT_LEAST_ONCE}, 1, True),
        ({"max_qos": mqtt5.QoS.AT_MOST_ONCE, "retain_available": False}, 0, False),
        ({"assigned_client_id": "another", "session_expiry_interval": 0}, 1, True),
    ],
)
async def test_limits_in_the_connack_are_respected(
    announced: dict[str, object],
    qos: int,
    retain: bool,  # noqa: FBT001
) -> None:
    async with published_to(accepting(**announced), acknowledged) as (broker, trial):
        trial.publisher.offer(trial.forecast("A/B", "there"))
        await until(lambda: trial.outcome("published") == 1)
        await until(lambda: any(m.payload == b"there" for m in broker.published))
    assert broker.wills == [Will(1, retain=True)]
    assert {(m.qos, m.retain) for m in broker.published} == {(qos, retain)}


async def test_the_brokers_keep_alive_and_receive_maximum_are_used() -> None:
    waiting: list[Published] = []

    def keep(message: Published) -> bytes:
        waiting.append(message)
        return b""

    login = accepting(server_keep_alive=1, receive_max=1)
    async with published_to(login, keep, keepalive_s=600) as (broker, trial):
        await wait_connected(trial)
        trial.publisher.offer(trial.forecast("A/B", "has to wait"))
        await until(lambda: broker.pings == 1)
        assert len(waiting) == 1


async def test_limits_in_a_disconnect_are_respected() -> None:
    def refuse(message: Published) -> bytes:
        code = mqtt5.DisconnectReasonCode.RETAIN_NOT_SUPPORTED
        if message.retain:
            return mqtt5.DisconnectPacket(reason_code=code).write()
        return acknowledged(message)

    async with published_to(accepting(), refuse) as (broker, trial):
        trial.publisher.offer(trial.forecast("A/B", "there"))
        await until(lambda: trial.outcome("published") == 1)
    assert broker.wills == [Will(1, retain=True), Will(1, retain=False)]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_broker_that_closes_on_a_retained_message_gets_unretained_ones(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    login = accepting() if version == "5" else always(ACCEPTED_311)

    def close(message: Published) -> bytes | None:
        return None if message.retain else acknowledged(message)

    async with published_to(login, close, version) as (broker, trial):
        trial.publisher.offer(trial.forecast("A/B", "there"))
        await until(lambda: trial.outcome("published") == 1)
        assert broker.wills[-1] == Will(1, retain=False)
        await until(lambda: log_count(caplog, NO_RETAIN_MESSAGE) == 1)


async def test_a_broker_lost_with_a_reason_keeps_all_features() -> None:
    """After it has acknowledged messages, some closed logins give up no feature."""
    shutting_down = mqtt5.DisconnectPacket(
        reason_code=mqtt5.DisconnectReasonCode.SERVER_SHUTTING_DOWN
    ).write()
    accepted = accepting()
    logins = 0

    def login(will: Will) -> bytes | None:
        nonlocal logins
        logins += 1
        return None if 1 < logins < 6 else accepted(will)

    def publish(message: Published) -> bytes:
        return shutting_down if logins == 1 and message.topic != STATUS else acknowledged(message)

    async with published_to(login, publish) as (broker, trial):
        trial.publisher.offer(trial.forecast("A/B", "there"))
        await until(lambda: trial.outcome("published") == 1)
    assert len(broker.wills) == 6
    assert set(broker.wills) == {Will(1, retain=True)}


async def test_a_broker_that_closes_on_everything_publishes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def close(_: Published) -> None:
        return None

    async with published_to(always(ACCEPTED_311), close, "3.1.1") as (broker, trial):
        trial.publisher.offer(trial.forecast("A/B", "there"))
        await until(lambda: len(broker.wills) == 10)
        assert broker.wills[-1] == Will(1, retain=True)
        assert trial.outcome("published") == 0
    assert log_count(caplog, "no MQTT broker at") == 1


C = mqtt5.ConnAckReasonCode


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            mqtt5.ConnAckPacket(reason_code=C.SERVER_MOVED, server_reference="b.example:8883"),
            r"server moved: b\.example:8883\); set mqtt\.host and mqtt\.port to it$",
        ),
        (mqtt5.ConnAckPacket(reason_code=C.CLIENT_ID_NOT_VALID), r"set another mqtt\.instance"),
        (mqtt5.ConnAckPacket(reason_code=C.BANNED, reason_str="paid\nnot"), r"\(banned\); .*lift"),
        (
            mqtt5.ConnAckPacket(reason_code=C.UNSUPPORTED_PROTOCOL_VERSION),
            r"set mqtt\.version: 3\.1\.1$",
        ),
        (b"\x20\x02\x00\x01", r"it speaks MQTT 3\.1\.1\); set mqtt\.version: 3\.1\.1$"),
    ],
)
async def test_a_permanent_refusal_is_one_line_with_a_remedy(
    answer: mqtt5.ConnAckPacket | bytes, words: str
) -> None:
    raw = answer if isinstance(answer, bytes) else answer.write()
    async with ScriptedBroker(always(raw), acknowledged) as broker:
        with pytest.raises(BrokerError, match=words) as caught:
            async with asyncio.timeout(MAX_WAIT_S):
                await PublisherHarness(broker.port).publisher.run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            mqtt5.ConnAckPacket(reason_code=C.USE_ANOTHER_SERVER, server_reference="b.example"),
            "(use another server: b.example; set mqtt.host and mqtt.port to it)",
        ),
        (
            mqtt5.ConnAckPacket(reason_code=C.QUOTA_EXCEEDED, reason_str="100 connections"),
            "(quota exceeded: 100 connections; raise the broker's quota)",
        ),
        (mqtt5.ConnAckPacket(reason_code=C.SERVER_BUSY), "(server busy)"),
    ],
)
async def test_a_temporary_refusal_is_logged_and_retried(
    answer: mqtt5.ConnAckPacket, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([answer.write()] * 3)
    accepted = accepting()
    async with published_to(lambda will: next(answers, accepted(will)), acknowledged) as (_, trial):
        trial.publisher.offer(trial.forecast("A/B", "there"))
        await until(lambda: trial.outcome("published") == 1)
    assert log_count(caplog, words) == 1


async def test_a_temporarily_denied_status_is_published_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    full = [True]

    def answer(message: Published) -> bytes:
        if full and message.topic == STATUS:
            full.clear()
            return denied(message, mqtt5.PubAckReasonCode.QUOTA_EXCEEDED)
        return acknowledged(message)

    async with published_to(accepting(), answer) as (broker, _):
        await until(lambda: sum(m.topic == STATUS for m in broker.published) == 2)
    assert log_count(caplog, f"{STATUS} (quota exceeded); raise the broker's quota") == 1
