"""Run a publisher with a manual clock, and read what a subscriber receives."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from daemon.metrics.metrics import Metrics
from daemon.mqtt.broker import Broker
from daemon.mqtt.outbox import Outbox, Outgoing
from daemon.mqtt.publisher import Publisher
from daemon.mqtt.topics import prediction_topic, status_topic
from tests.support.manual_clock import FixedWallClock
from tests.support.servers import (
    HOST,
    MAX_WAIT_S,
    Subscriber,
)

STATUS = status_topic("tester")
PASSWORD = "wrong-and-secret"
NOW_MS = 1_776_859_620_000
# Reconnecting takes a tenth of its time.
SPEED = 10.0


class PublisherHarness:
    """A publisher with its clock, metrics and outbox."""

    def __init__(
        self,
        port: int,
        *,
        version: str = "5",
        username: str | None = None,
        tls: ssl.SSLContext | None = None,
        keepalive_s: int = 30,
    ) -> None:
        self.clock = FixedWallClock(NOW_MS, SPEED)
        self.metrics = Metrics(10)
        self.outbox = Outbox(100)
        broker = Broker(HOST, port, version, username, username and PASSWORD, keepalive_s, tls)
        self.publisher = Publisher(broker, "tester", self.outbox, self.clock, self.metrics)

    def forecast(self, symbol: str, text: str, valid_ms: int = 60_000) -> Outgoing:
        topic = prediction_topic("binance", symbol, "1m")
        valid_until_ms = self.clock.wall_ms() + valid_ms
        return Outgoing(
            topic,
            topic,
            text.encode(),
            qos=1,
            retain=self.publisher.retains,
            valid_until_ms=valid_until_ms,
            received_s=self.clock.monotonic(),
            is_forecast=True,
        )

    def outcome(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "candlecast_predictions_total", {"outcome": name}
        )
        assert value is not None
        return value


@asynccontextmanager
async def running(trial: PublisherHarness) -> AsyncIterator[PublisherHarness]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(trial.publisher.run())
        yield trial
        task.cancel()


async def next_message(subscriber: Subscriber, within_s: float = MAX_WAIT_S) -> dict[str, Any]:
    return await asyncio.to_thread(subscriber.next, within_s)


async def received_messages(subscriber: Subscriber) -> list[dict[str, Any]]:
    """Return the messages that have arrived and were not returned before."""
    return await asyncio.to_thread(subscriber.passed_on)


async def state(subscriber: Subscriber) -> str:
    message = await next_message(subscriber)
    assert (message["topic"], message["qos"]) == (STATUS, 1)
    text = str(json.loads(message["payload"])["state"])
    return text + (" (retained)" if message["retain"] else "")


async def wait_connected(trial: PublisherHarness) -> None:
    async with asyncio.timeout(MAX_WAIT_S):
        await trial.publisher.connected.wait()
