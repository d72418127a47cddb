"""Measure the processor time of publishing a retained QoS 1 message, by MQTT client.

    python -m benchmarks.daemon.publishers
    python -m benchmarks.daemon.publishers --messages 200 --rounds 5

Each client publishes 1,000 messages of 850 bytes to Mosquitto with MQTT 5, with an expiry, under
uvloop; the clients take turns. Processor time is that of this process, from the first call to the
last acknowledgement. Then each client publishes to a topic that the broker denies, to find out
whether it reports that.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiomqtt
import uvloop
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.harness.processes import HOST, TUNED, mosquitto
from benchmarks.report import machine, print_machine, print_table, save, spread
from daemon.metrics.declarations import Declarations
from daemon.metrics.forecast_series import ForecastSeries
from daemon.metrics.metrics import Metrics
from daemon.mqtt.broker import Broker
from daemon.mqtt.outbox import Outbox, Outgoing
from daemon.mqtt.publisher import Publisher
from daemon.runtime.clock import SystemClock

_PAYLOAD: Final = b"x" * 850
_EXPIRY_S: Final = 60
_DENIED: Final = "denied/topic"
_WAIT_S: Final = 1.0


class Client(NamedTuple):
    """A connected client.

    Attributes:
        publish: publishes a message to each topic; returns after the last acknowledgement.
        sees_denial: publishes to a denied topic; returns whether the client reports the denial.
    """

    publish: Callable[[list[str]], Awaitable[None]]
    sees_denial: Callable[[], Awaitable[str]]


def _properties() -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.MessageExpiryInterval = _EXPIRY_S
    return properties


@asynccontextmanager
async def _aiomqtt(port: int, *, together: bool) -> AsyncIterator[Client]:
    async with aiomqtt.Client(HOST, port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        # aiomqtt only warns that many publishes are pending, which is intended here.
        logging.getLogger("mqtt").setLevel(logging.ERROR)

        async def one(topic: str) -> None:
            await client.publish(
                topic, _PAYLOAD, qos=1, retain=True, properties=_properties(), timeout=30
            )

        async def publish(topics: list[str]) -> None:
            if together:
                await asyncio.gather(*map(one, topics))
                return
            for topic in topics:
                await one(topic)

        async def sees_denial() -> str:
            try:
                await one(_DENIED)
            except aiomqtt.MqttError:
                return "yes"
            return "no"

        yield Client(publish, sees_denial)


@asynccontextmanager
async def _gmqtt(port: int) -> AsyncIterator[Client]:
    gmqtt = importlib.import_module("gmqtt")
    storage = importlib.import_module("gmqtt.storage").PersistentStorage()
    client = gmqtt.Client("gmqtt", persistent_storage=storage)
    heard: list[object] = []
    client.on_disconnect = lambda *what, **_: heard.append(what)
    await client.connect(HOST, port)

    async def publish(topics: list[str]) -> None:
        for topic in topics:
            client.publish(topic, _PAYLOAD, qos=1, retain=True, message_expiry_interval=_EXPIRY_S)
        await storage.wait_empty()

    async def sees_denial() -> str:
        client.publish(_DENIED, _PAYLOAD, qos=1, retain=True)
        await asyncio.sleep(_WAIT_S)
        # gmqtt takes any PUBACK for success, but reports that Mosquitto 2.0 then disconnects.
        return "only that the connection is lost" if heard else "no"

    try:
        yield Client(publish, sees_denial)
    finally:
        await client.disconnect()


class _Counting(ForecastSeries):
    """Forecast metrics that set an event when the last message of a burst is acknowledged."""

    def __init__(self) -> None:
        super().__init__(Declarations())
        self.left = 0
        self.done = asyncio.Event()

    def on_published(self, publish_s: float, total_s: float, late: bool) -> None:  # noqa: FBT001
        """Count down."""
        super().on_published(publish_s, total_s, late)
        self.left -= 1
        if not self.left:
            self.done.set()


@asynccontextmanager
async def _ours(port: int) -> AsyncIterator[Client]:
    metrics, clock = Metrics(), SystemClock()
    counting = _Counting()
    metrics.forecasts = counting
    broker = Broker(HOST, port, "5", None, None, 30)
    publisher = Publisher(broker, "benchmark", Outbox(4_096), clock, metrics)

    def offer(topic: str) -> None:
        now_s, until_ms = clock.monotonic(), clock.wall_ms() + 1_000 * _EXPIRY_S
        message = Outgoing(topic, topic, _PAYLOAD, 1, True, until_ms, now_s, False, True)  # noqa: FBT003
        publisher.offer(message)

    async def publish(topics: list[str]) -> None:
        counting.left = len(topics)
        counting.done.clear()
        for topic in topics:
            offer(topic)
        await counting.done.wait()

    async def sees_denial() -> str:
        logging.getLogger("candlecast.mqtt").setLevel(logging.CRITICAL)
        offer(_DENIED)
        await asyncio.sleep(_WAIT_S)
        counter = metrics.registry.get_sample_value("candlecast_mqtt_denied_total")
        return "yes" if counter else "no"

    async with asyncio.TaskGroup() as group:
        running = group.create_task(publisher.run())
        await publisher.connected.wait()
        yield Client(publish, sees_denial)
        running.cancel()


CLIENTS: Final[dict[str, Callable[[int], AbstractAsyncContextManager[Client]]]] = {
    "aiomqtt, one after the other": lambda port: _aiomqtt(port, together=False),
    "aiomqtt, gather": lambda port: _aiomqtt(port, together=True),
    "gmqtt": _gmqtt,
    "daemon/mqtt/publisher.py": _ours,
}


async def measure(port: int, messages: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Measure all clients in turns; the first round is not counted."""
    topics = [f"candlecast/v1/binance/S{i:04}-USDT/1m/prediction" for i in range(messages)]
    # Log lines about the connections that the broker closes after the denial.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # noqa: ARG005
    logging.getLogger("gmqtt").setLevel(logging.CRITICAL)
    cpu_us: dict[str, list[float]] = {name: [] for name in CLIENTS}
    wall_ms: dict[str, list[float]] = {name: [] for name in CLIENTS}
    sees: dict[str, object] = {}
    for number in range(rounds + 1):
        for name, connect in CLIENTS.items():
            try:
                async with connect(port) as client:
                    started = time.perf_counter(), time.process_time()
                    await client.publish(topics)
                    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
                    if number:
                        cpu_us[name].append(1e6 * cpu / messages)
                        wall_ms[name].append(1e3 * wall)
                    else:
                        sees[name] = await client.sees_denial()
            except ModuleNotFoundError as error:
                sees[name] = f"missing: {error.name}"
    return {
        name: {
            "cpu_us_per_message": spread(cpu_us[name])._asdict(),
            "last_ack_ms": spread(wall_ms[name])._asdict(),
            "sees_denial": sees[name],
        }
        for name in CLIENTS
    }


def main() -> None:
    """Measure, print the table, write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000, help="of one burst")
    parser.add_argument("--rounds", type=int, default=25, help="turns of each client")
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine("aiomqtt", "paho-mqtt", "gmqtt", "mqtt5")}
    print_machine(report["machine"])
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "acl"
        rules.write_text("topic readwrite candlecast/#\n", encoding="utf-8")
        with mosquitto(Path(folder), (*TUNED, f"acl_file {rules}")) as broker:
            report["clients"] = uvloop.run(measure(broker.port, args.messages, args.rounds))
    print(f"{args.messages} messages of {len(_PAYLOAD)} bytes\n")
    print_table(
        ("client", "CPU µs a message", "p99", "last ack, ms", "p99", "sees a denial"),
        (
            (
                name,
                row["cpu_us_per_message"]["p50"],
                row["cpu_us_per_message"]["p99"],
                row["last_ack_ms"]["p50"],
                row["last_ack_ms"]["p99"],
                row["sees_denial"],
            )
            for name, row in report["clients"].items()
        ),
    )
    save("publishers", report)


if __name__ == "__main__":
    main()
