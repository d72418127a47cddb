"""The publisher with a real mosquitto that stops, restarts and denies topics."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from daemon.mqtt.outbox import Outgoing
from model.core.errors import BrokerError
from tests.sandbox.scaled import stopwatch
from tests.support.publisher_harness import (
    PASSWORD,
    STATUS,
    PublisherHarness,
    next_message,
    received_messages,
    running,
    state,
    wait_connected,
)
from tests.support.servers import (
    HOST,
    MAX_WAIT_S,
    Mosquitto,
    free_port,
    mosquitto,
    mosquitto_sub,
    password_file,
)
from tests.support.waiting import until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path) as server:
        yield server


def seconds_since(began_s: float) -> int:
    """Whole seconds, rounded up, that a broker may have counted since then, monotonic clock."""
    return math.ceil(time.monotonic() - began_s)


async def test_a_forecast_is_retained_and_expires_with_its_use(broker: Mosquitto) -> None:
    with mosquitto_sub(broker.port, "candlecast/#") as live:
        async with running(PublisherHarness(broker.port)) as trial:
            assert await state(live) == "starting"
            began_s = time.monotonic()
            for symbol, valid_ms in (("A/B", 59_001), ("C/D:D", 1), ("E/F", 1_000)):
                trial.publisher.offer(trial.forecast(symbol, symbol, valid_ms))
            got = [await next_message(live) for _ in range(3)]
            await until(lambda: trial.outcome("published") == 3)
        assert [(m["topic"], m["payload"], m["qos"]) for m in got] == [
            ("candlecast/v1/binance/A-B/1m/prediction", "A/B", 1),
            ("candlecast/v1/binance/C-D-D/1m/prediction", "C/D:D", 1),
            ("candlecast/v1/binance/E-F/1m/prediction", "E/F", 1),
        ]
        # The broker counts off the seconds that it takes to pass the message on.
        expiries = [m["properties"]["message-expiry-interval"] for m in got]
        assert 60 - seconds_since(began_s) <= expiries[0] <= 60
        assert set(expiries[1:]) <= {0, 1}
    with mosquitto_sub(broker.port, "candlecast/+/+/A-B/#") as later:
        message = await next_message(later)
        assert (message["payload"], message["retain"]) == ("A/B", 1)


async def test_expiry_is_never_zero(broker: Mosquitto) -> None:
    async with running(PublisherHarness(broker.port)) as trial:
        trial.publisher.offer(trial.forecast("A/B", "soon gone", 1))
        await until(lambda: trial.outcome("published") == 1)
        await asyncio.sleep(2.1)
    with mosquitto_sub(broker.port, "candlecast/+/+/A-B/#") as later:
        assert await received_messages(later) == []


async def test_expired_messages_are_counted_and_not_sent(broker: Mosquitto) -> None:
    with mosquitto_sub(broker.port, "candlecast/v1/binance/#") as live:
        async with running(PublisherHarness(broker.port)) as trial:
            trial.publisher.offer(trial.forecast("A/B", "gone", 0))
            trial.publisher.offer(trial.forecast("A/C", "there"))
            assert (await next_message(live))["payload"] == "there"
            assert trial.outcome("dropped") == 1
            await until(lambda: trial.outcome("published") == 1)


async def test_version_3_retains_no_forecast_but_the_status(broker: Mosquitto) -> None:
    with mosquitto_sub(broker.port, "candlecast/v1/binance/#") as live:
        async with running(PublisherHarness(broker.port, version="3.1.1")) as trial:
            trial.publisher.offer(trial.forecast("A/B", "there"))
            assert (await next_message(live))["payload"] == "there"
    with mosquitto_sub(broker.port, "candlecast/#") as later:
        assert await state(later) == "starting (retained)"
        assert await received_messages(later) == []


async def test_the_status_is_published_once_per_change_and_on_every_connection(
    broker: Mosquitto, tmp_path: Path
) -> None:
    async with running(PublisherHarness(broker.port)) as trial:
        publisher = trial.publisher
        with mosquitto_sub(broker.port, STATUS) as live:
            assert (await state(live)).startswith("starting")
            for _ in range(2):
                publisher.announce("online", (), "v1")
            assert await state(live) == "online"
            publisher.announce("degraded", ["A/B"], "v1")
            message = json.loads((await next_message(live))["payload"])
            assert message["stale_symbols"] == ["A/B"]
            assert (message["schema"], message["instance"], message["model"]) == (1, "tester", "v1")
            assert message["since_ms"] == trial.clock.wall_ms()
            assert await received_messages(live) == []
        for end in (broker.stop, broker.kill):
            end()
            await until(lambda: not publisher.connected.is_set())
            # The new one has lost everything: it keeps nothing on disk.
            broker.start()
            await wait_connected(trial)
            with mosquitto_sub(broker.port, STATUS) as live:
                assert (await state(live)).startswith("degraded")
    assert not list(tmp_path.glob("*.db"))


async def test_the_will_says_offline_when_the_process_is_cut_off(broker: Mosquitto) -> None:
    with mosquitto_sub(broker.port, STATUS) as live:
        with suppress(asyncio.CancelledError):
            async with running(PublisherHarness(broker.port)) as trial:
                assert await state(live) == "starting"
                cut_connections(broker.port)
                assert await state(live) == "offline"
                # And is corrected as soon as there is a connection again.
                assert await state(live) == "starting"
                trial.publisher.announce("online", (), None)
                assert await state(live) == "online"
        assert await received_messages(live) == []


def cut_connections(port: int) -> None:
    """Shut this process's sockets to a port down, as if it had been killed."""
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        try:
            with socket.socket(fileno=os.dup(number)) as copy:
                if copy.family == socket.AF_INET and copy.getpeername()[1] == port:
                    copy.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


async def test_shutdown_publishes_stopping_then_offline_after_all_forecasts(
    broker: Mosquitto,
) -> None:
    with mosquitto_sub(broker.port, "candlecast/#") as live:
        async with running(PublisherHarness(broker.port)) as trial:
            assert await state(live) == "starting"
            for number in range(70):
                trial.publisher.offer(trial.forecast(f"S{number}/U", "x"))
            await trial.publisher.shutdown(MAX_WAIT_S)
        got = [await next_message(live) for _ in range(72)]
        states = [json.loads(m["payload"])["state"] for m in got if m["topic"] == STATUS]
        assert states == ["stopping", "offline"]
        assert got[-1]["topic"] == STATUS
        assert await received_messages(live) == []
    with mosquitto_sub(broker.port, STATUS) as later:
        assert await state(later) == "offline (retained)"


async def test_shutdown_without_a_broker_ends_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async with running(PublisherHarness(free_port())) as trial, stopwatch() as taken_s:
        await trial.publisher.shutdown(0.2)
        assert taken_s() < 5.0
    assert "the status offline was not published" in caplog.text


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_interrupted_messages_are_sent_again_unchanged_and_counted_once(
    broker: Mosquitto, version: str
) -> None:
    trial = PublisherHarness(broker.port, version=version)
    async with running(trial):
        await wait_connected(trial)
        trial.publisher.offer(trial.forecast("A/A", "acknowledged"))
        await until(lambda: trial.outcome("published") == 1)
        # It takes messages in no more, so they are on their way when the connection ends.
        os.kill(broker.pid, signal.SIGSTOP)
        trial.publisher.offer(trial.forecast("A/B", "valid"))
        trial.publisher.offer(trial.forecast("A/C", "replaced"))
        trial.publisher.offer(trial.forecast("A/D", "expiring", 1_000))
        await until(lambda: len(trial.outbox) == 0)
        broker.kill()
        await until(lambda: not trial.publisher.connected.is_set())
        trial.clock.now_ms += 5_000
        trial.publisher.offer(trial.forecast("A/C", "newer"))
        for late in ("first", "second"):
            trial.publisher.offer(trial.forecast("A/E", late))
        broker.start()
        returned_s = time.monotonic()
        with mosquitto_sub(broker.port, "candlecast/v1/binance/#") as live:
            await until(lambda: trial.outcome("published") == 4)
            got = {m["payload"]: m for m in await received_messages(live)}
    if version == "5":
        assert set(got) == {"acknowledged", "valid", "newer", "second"}
        remaining = got["acknowledged"]["properties"]["message-expiry-interval"]
        assert 55 - seconds_since(returned_s) <= remaining <= 55
    # Whichever version: what was replaced, overtaken or expired is the rest of what was offered.
    assert trial.outcome("published") == 4
    assert trial.outcome("dropped") == 3


async def test_repeated_broker_restarts_under_load_lose_no_valid_message(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    offered = 0
    trial = PublisherHarness(broker.port)
    async with running(trial):
        await wait_connected(trial)
        for end in (broker.kill, broker.stop, broker.kill):
            for number in range(300):
                if number == 150:
                    end()
                trial.publisher.offer(trial.forecast(f"S{offered % 90}/U", str(offered)))
                offered += 1
                if number % 7 == 0:
                    await asyncio.sleep(0)
            broker.start()
            await wait_connected(trial)
        with mosquitto_sub(broker.port, "candlecast/v1/binance/#") as live:
            await until(lambda: trial.outcome("published") + trial.outcome("dropped") == offered)
            newest: dict[str, int] = {}
            for message in await received_messages(live):
                newest[message["topic"]] = int(message["payload"])
    assert sorted(newest.values()) == list(range(offered - 90, offered))
    assert "refuses" not in caplog.text


async def test_offer_never_blocks_and_stays_bounded_without_a_broker() -> None:
    trial = PublisherHarness(free_port())
    async with running(trial):
        for number in range(10_000):
            trial.publisher.offer(trial.forecast(f"S{number}/U", "x"))
        assert len(trial.outbox) == 100
        assert trial.outcome("dropped") == 9_900


async def test_a_qos_0_message_does_not_wait_for_a_broker(broker: Mosquitto) -> None:
    batch = Outgoing("batch/1", "candlecast/v1/binance/1m/batch", b"all", qos=0, retain=False)
    trial = PublisherHarness(broker.port)
    trial.publisher.offer(batch)
    assert len(trial.outbox) == 0
    with mosquitto_sub(broker.port, batch.topic) as live:
        async with running(trial):
            await wait_connected(trial)
            trial.publisher.offer(batch)
            assert (await next_message(live))["payload"] == "all"


async def test_an_absent_broker_and_its_return_are_logged_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "candlecast.mqtt")
    broker = Mosquitto(tmp_path)
    trial = PublisherHarness(broker.port)
    async with running(trial):
        await until(lambda: caplog.records)
        trial.publisher.offer(trial.forecast("A/B", "waited"))
        assert trial.metrics.registry.get_sample_value("candlecast_mqtt_connected") == 0
        broker.start()
        try:
            await wait_connected(trial)
            await until(lambda: trial.outcome("published") == 1)
            await until(lambda: len(caplog.records) == 2)
        finally:
            broker.kill()
    lines = [record.getMessage() for record in caplog.records[:2]]
    assert lines[0].startswith(f"no MQTT broker at {HOST}:{broker.port} (")
    assert lines[1] == "the MQTT broker is back"


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_wrong_credentials_end_it_with_one_line(tmp_path: Path, version: str) -> None:
    passwords = password_file(tmp_path, "trader", "right")
    with mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}") as server:
        trial = PublisherHarness(server.port, version=version, username="trader")
        with pytest.raises(BrokerError) as caught:
            async with asyncio.timeout(MAX_WAIT_S):
                await trial.publisher.run()
        line = str(caught.value)
        assert "'trader'" in line
        assert "mqtt.username" in line
        assert "\n" not in line
        assert PASSWORD not in line


# Of the two, only the second makes mosquitto close the connection over a denied message.
@pytest.mark.parametrize("queued", ["max_queued_messages 1000", "max_queued_messages 0"])
async def test_a_user_without_the_right_to_publish_gets_an_error(
    tmp_path: Path, queued: str
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\n")
    denied = pytest.raises(
        BrokerError, match=r"denies publishing to .*\(not authorized\); let user None"
    )
    with mosquitto(tmp_path, f"acl_file {acl}", queued) as server, denied:
        async with asyncio.timeout(MAX_WAIT_S):
            await PublisherHarness(server.port).publisher.run()


async def test_a_denied_topic_is_counted_and_paused_while_others_are_published(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acl = tmp_path / "acl"
    allowed = ("candlecast/v1/status/#", "candlecast/+/+/A-B/#", "subscribed/#")
    acl.write_text("".join(f"topic readwrite {topic}\n" for topic in allowed))
    with (
        mosquitto(tmp_path, f"acl_file {acl}") as server,
        mosquitto_sub(server.port, "candlecast/+/+/A-B/#") as live,
    ):
        async with running(PublisherHarness(server.port)) as trial:
            await wait_connected(trial)
            trial.publisher.offer(trial.forecast("C/D", "denied"))
            await until(lambda: trial.outcome("dropped") == 1)
            trial.publisher.offer(trial.forecast("C/D", "spared"))
            assert trial.outcome("dropped") == 2
            trial.publisher.offer(trial.forecast("A/B", "taken"))
            assert (await next_message(live))["payload"] == "taken"
            await until(lambda: trial.outcome("published") == 1)
    lines = [r.getMessage() for r in caplog.records if "denies" in r.getMessage()]
    assert len(lines) == 1
    assert "candlecast/v1/binance/C-D/1m/prediction" in lines[0]


async def test_an_oversized_message_is_counted_and_the_connection_stays_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        mosquitto(tmp_path, "max_packet_size 1000") as server,
        mosquitto_sub(server.port, "candlecast/v1/binance/#") as live,
    ):
        async with running(PublisherHarness(server.port)) as trial:
            await wait_connected(trial)
            batch = trial.forecast("A/B", 1_000 * "x")._replace(
                key="batch", topic="candlecast/v1/binance/1m/batch", qos=0, retain=False
            )
            for message in (batch, trial.forecast("C/D", 1_000 * "y")):
                trial.publisher.offer(message)
            trial.publisher.announce("degraded", 100 * ["TOO/MANY"], None)
            trial.publisher.offer(trial.forecast("A/B", "taken"))
            assert (await next_message(live))["payload"] == "taken"
            await until(lambda: trial.outcome("published") == 1)
            value = trial.metrics.registry.get_sample_value
            assert value("candlecast_mqtt_denied_total") == 3
            assert value("candlecast_mqtt_connections_total") == 1
            assert trial.outcome("dropped") == 2
    lines = [r.getMessage() for r in caplog.records if "packet too large" in r.getMessage()]
    assert len(lines) == 1
    assert "let it take more than" in lines[0]
