"""Test forecasts and status over a bad connection to a real mosquitto."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

import mqtt5
import pytest

from tests.faults.proxy import FaultProxy
from tests.sandbox.scaled import stopwatch
from tests.support.publisher_harness import (
    STATUS,
    PublisherHarness,
    next_message,
    received_messages,
    running,
    state,
    wait_connected,
)
from tests.support.servers import HOST, Mosquitto, mosquitto, mosquitto_sub
from tests.support.waiting import until

KEEPALIVE_S = 3


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path) as server:
        yield server


@pytest.fixture
async def proxy(broker: Mosquitto) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(broker.port, random.Random(1)) as opened:
        yield opened


async def test_a_half_open_socket_is_noticed_on_both_sides(
    broker: Mosquitto, proxy: FaultProxy
) -> None:
    with mosquitto_sub(broker.port, STATUS) as live:
        async with running(PublisherHarness(proxy.port, keepalive_s=KEEPALIVE_S)) as trial:
            assert await state(live) == "starting"
            trial.publisher.announce("online", (), "v1")
            assert await state(live) == "online"
            began_s = time.monotonic()
            async with stopwatch() as taken_s:
                proxy.impairment.half_open = True
                await until(lambda: not trial.publisher.connected.is_set())
                # The trial's clock is ten times as fast, so this is generous.
                assert taken_s() <= 2 * KEEPALIVE_S
                # The broker looks after its clients' keep-alives every few seconds.
                assert await state(live) == "offline"
                assert time.monotonic() - began_s >= KEEPALIVE_S
                assert taken_s() <= 1.5 * KEEPALIVE_S + 6.0
            proxy.impairment.half_open = False
            assert await state(live) == "online"
            trial.publisher.offer(trial.forecast("A/B", "again"))
            await until(lambda: trial.outcome("published") == 1)


async def test_the_will_comes_within_a_second_of_a_reset(
    broker: Mosquitto, proxy: FaultProxy
) -> None:
    with mosquitto_sub(broker.port, STATUS) as live:
        async with running(PublisherHarness(proxy.port)):
            assert await state(live) == "starting"
            proxy.impairment.refuse = True
            async with stopwatch() as taken_s:
                proxy.cut()
                assert await state(live) == "offline"
                assert taken_s() < 1.0
            proxy.impairment.refuse = False
            assert await state(live) == "starting"


async def test_after_a_kill_birth_and_latest_forecasts_are_back_within_5_s(
    broker: Mosquitto,
) -> None:
    trial = PublisherHarness(broker.port)
    async with running(trial):
        trial.publisher.announce("online", (), "v1")
        await wait_connected(trial)
        for symbol in ("A/B", "C/D"):
            for text in ("older", "newest"):
                trial.publisher.offer(trial.forecast(symbol, text))
        await until(lambda: trial.outcome("published") + trial.outcome("dropped") == 4)
        broker.kill()
        await until(lambda: not trial.publisher.connected.is_set())
        # Long enough, at ten times the speed, for the pauses to have become as long as they get.
        trial.clock.slept.clear()
        await asyncio.sleep(2.0)
        assert max(trial.clock.slept) <= 3.0
        trial.publisher.offer(trial.forecast("A/B", "made meanwhile"))
        await asyncio.to_thread(broker.start)
        with mosquitto_sub(broker.port, "candlecast/#") as live:
            got: dict[str, str] = {}
            async with stopwatch() as taken_s:
                while len(got) < 3:
                    message = await next_message(live)
                    got[message["topic"]] = message["payload"]
                assert taken_s() <= 5.0
    assert json.loads(got.pop(STATUS))["state"] == "online"
    assert sorted(got.values()) == ["made meanwhile", "newest"]


async def test_a_slow_connection_to_the_broker_keeps_the_newest_and_blocks_no_caller(
    broker: Mosquitto, proxy: FaultProxy
) -> None:
    proxy.impairment.bytes_per_s = 20_000.0
    trial = PublisherHarness(proxy.port)
    symbols = [f"S{number}/U" for number in range(60)]
    text = "x" * 4_000
    with mosquitto_sub(broker.port, "candlecast/v1/binance/#") as live:
        async with running(trial):
            await wait_connected(trial)
            for turn in range(6):
                waits_s = []
                for symbol in symbols:
                    began_s = time.monotonic()
                    trial.publisher.offer(trial.forecast(symbol, f"{turn} {text}"))
                    waits_s.append(time.monotonic() - began_s)
                # The way takes 0.2 s for one. A machine that stands still delays a few of them.
                assert median(waits_s) < 0.02
                assert len(trial.outbox) <= 100
                await asyncio.sleep(0.1)
            proxy.impairment.bytes_per_s = 1e9
            every = 6 * len(symbols)
            await until(lambda: trial.outcome("published") + trial.outcome("dropped") == every)
            assert trial.outcome("dropped") > 0
        newest: dict[str, str] = {}
        while len(newest) < len(symbols) or {text[0] for text in newest.values()} != {"5"}:
            message = await next_message(live)
            newest[message["topic"]] = message["payload"]


async def test_a_consumer_that_does_not_read_delays_no_other(broker: Mosquitto) -> None:
    with (
        closing(stalled_subscriber(broker.port)),
        mosquitto_sub(broker.port, "candlecast/v1/#") as live,
    ):
        trial = PublisherHarness(broker.port)
        async with running(trial):
            await wait_connected(trial)
            for number in range(1_500):
                trial.publisher.offer(
                    trial.forecast(f"S{number % 90}/U", f"{number} {'x' * 4_000}")
                )
                if number % 30 == 0:
                    await until(lambda: trial.outbox.is_drained)
            await until(lambda: trial.outcome("published") == 1_500)
        passed_on = await received_messages(live)
        got = [m["payload"] for m in passed_on if m["topic"] != STATUS]
    assert [int(payload.partition(" ")[0]) for payload in got] == list(range(1_500))


def stalled_subscriber(port: int) -> socket.socket:
    """Subscribed to everything, reading nothing more."""
    client = socket.create_connection((HOST, port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.sendall(mqtt5.ConnectPacket("stalled").write())
    client.recv(1_024)
    # SUBSCRIBE, packet 1, no properties, candlecast/# at QoS 0.
    client.sendall(b"\x82\x12\x00\x01\x00\x00\x0ccandlecast/#\x00")
    client.recv(1_024)
    return client


async def test_a_temporarily_refusing_broker_is_retried(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    asked = 0

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(1_024)
        # CONNACK, server busy.
        writer.write(b"\x20\x03\x00\x89\x00")
        writer.close()

    trial = PublisherHarness(broker.port)
    async with running(trial):
        trial.publisher.offer(trial.forecast("A/B", "waits"))
        async with await asyncio.start_server(busy, HOST, broker.port):
            await until(lambda: asked >= 3)
        assert not trial.publisher.connected.is_set()
        broker.start()
        try:
            await until(lambda: trial.outcome("published") == 1)
        finally:
            broker.kill()


async def test_a_stale_forecast_is_never_sent_late_as_if_it_were_new(
    broker: Mosquitto, proxy: FaultProxy
) -> None:
    trial = PublisherHarness(proxy.port)
    with mosquitto_sub(broker.port, "candlecast/v1/binance/#") as live:
        async with running(trial):
            await wait_connected(trial)
            proxy.impairment.refuse = True
            proxy.cut()
            await until(lambda: not trial.publisher.connected.is_set())
            trial.publisher.offer(trial.forecast("A/B", "stale", 1_000))
            trial.publisher.offer(trial.forecast("C/D", "valid", 60_000))
            trial.clock.now_ms += 2_000
            proxy.impairment.refuse = False
            assert (await next_message(live))["payload"] == "valid"
            assert await received_messages(live) == []
            # The broker passes a message on before it acknowledges it.
            await until(lambda: trial.outcome("published") == 1)
        assert (trial.outcome("published"), trial.outcome("dropped")) == (1, 1)


async def _acknowledge_nothing(
    keep_alive: int | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Accepts every client, answers pings, and acknowledges nothing."""
    with closing(writer):
        await reader.read(65_536)
        writer.write(mqtt5.ConnAckPacket(server_keep_alive=keep_alive).write())
        while sent := await reader.read(65_536):
            writer.write(mqtt5.PingRespPacket().write() * sent.count(b"\xc0\x00"))


@pytest.mark.parametrize("keep_alive", [None, 3_600], ids=["ours", "its own"])
async def test_a_broker_that_acknowledges_nothing_counts_as_lost(
    caplog: pytest.LogCaptureFixture, keep_alive: int | None
) -> None:
    async with await asyncio.start_server(
        partial(_acknowledge_nothing, keep_alive), HOST
    ) as server:
        port = server.sockets[0].getsockname()[1]
        async with running(PublisherHarness(port, keepalive_s=KEEPALIVE_S)) as trial:
            await wait_connected(trial)
            await until(lambda: not trial.publisher.connected.is_set())
            await wait_connected(trial)
    assert "it has stopped acknowledging messages" in caplog.text
