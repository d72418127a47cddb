"""Subscribe to forecasts over MQTT 5 and record when each arrived.

    python -m benchmarks.harness.subscriber PORT FILE

Prints a line when it is subscribed. On SIGTERM it writes one line per forecast to FILE: symbol,
candle close (ms), arrival (monotonic ns), retained from before (0 or 1), payload bytes, and the
forecast's own latencies (ms; empty if it has none).
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

import mqtt5

_TOPIC = "candlecast/v1/+/+/+/prediction"


class Subscriber(asyncio.Protocol):
    """Keeps every message with the time at which its last byte was read."""

    def __init__(self) -> None:
        self.subscribed = asyncio.Event()
        self.messages: list[tuple[int, mqtt5.PublishPacket]] = []
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.WriteTransport", transport)
        connect = mqtt5.ConnectPacket("benchmark-subscriber", clean_start=True, keep_alive=0)
        wanted = mqtt5.TopicFilter(_TOPIC, max_qos=mqtt5.QoS.AT_LEAST_ONCE)
        subscribe = mqtt5.SubscribePacket(1, [wanted])
        self._transport.write(connect.write() + subscribe.write())

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        arrived_ns = time.monotonic_ns()
        buffer = memoryview(self._buffer + data if self._buffer else data)
        at = 0
        answers = []
        try:
            while at < len(buffer):
                packet, length = mqtt5.read(buffer[at:])
                at += length
                if isinstance(packet, mqtt5.PublishPacket):
                    self.messages.append((arrived_ns, packet))
                    if packet.packet_id is not None:
                        answers.append(mqtt5.PubAckPacket(packet.packet_id).write())
                elif isinstance(packet, mqtt5.SubAckPacket):
                    self.subscribed.set()
        except IndexError:
            pass
        self._buffer = bytes(buffer[at:])
        if answers and self._transport is not None:
            self._transport.write(b"".join(answers))


def line(arrived_ns: int, packet: mqtt5.PublishPacket) -> str:
    """One forecast as a line of the file."""
    payload: dict[str, Any] = json.loads(packet.payload or b"{}")
    latency = payload.get("latency_ms", {})
    values = (
        payload["symbol"],
        payload["candle_close_ms"],
        arrived_ns,
        int(packet.retain),
        len(packet.payload or b""),
        payload.get("published_ms", ""),
        *(latency.get(name, "") for name in ("ready", "queue", "inference")),
    )
    return ",".join(map(str, values))


async def collect(port: int) -> Subscriber:
    """Subscribe and collect until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    subscriber = Subscriber()
    await loop.create_connection(lambda: subscriber, "127.0.0.1", port)
    async with asyncio.timeout(10):
        await subscriber.subscribed.wait()
    # A garbage collection during a burst would count as latency of the daemon.
    gc.disable()
    print("subscribed", flush=True)
    await ended.wait()
    return subscriber


def main(port: int, path: Path) -> None:
    """Collect messages, then write them to the file."""
    messages = asyncio.run(collect(port)).messages
    path.write_text("\n".join(line(*message) for message in messages), encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
