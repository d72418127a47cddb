"""Subscribe to forecasts over MQTT 5 and record when each arrived.

    python -m benchmarks.harness.subscriber PORT FILE [at-once]

Prints a line when it is subscribed. Until SIGTERM it only stores what it reads, to take little time
from what is measured, and acknowledges it after each burst; `at-once` acknowledges during it, which
a broker that limits the messages in flight waits for. Then it decodes the messages and writes one
line per forecast to FILE: symbol, candle close (ms), arrival (monotonic ns), retained from before
(0 or 1), payload bytes, and the forecast's own latencies (ms; empty if it has none).
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import mqtt5

_QUIET_S: Final = 0.02
_TOPIC: Final = "candlecast/v1/+/+/+/prediction"

# First bytes of MQTT packets: the type is in the upper half, the QoS in the flags of PUBLISH.
_TYPE: Final = 0xF0
_PUBLISH: Final = 0x30
_QOS: Final = 0x06
_SUBACK: Final = 0x90
_PUBACK: Final = b"\x40\x02"

_MAX_LENGTH_BYTES: Final = 4
"""Bytes of a packet's length at most, in MQTT."""


class Subscriber(asyncio.Protocol):
    """Store what arrives with the time at which it was read; acknowledge it when all is quiet.

    Args:
        quiet_s: acknowledge after nothing has arrived for so long; 0 acknowledges at once.

    Attributes:
        subscribed: set when the broker has answered.
        chunks: everything that was read: monotonic time (ns) and bytes.
    """

    def __init__(self, quiet_s: float) -> None:
        self.subscribed = asyncio.Event()
        self.chunks: list[tuple[int, bytes]] = []
        self._quiet_s = quiet_s
        self._seen = 0
        self._rest = b""
        self._timer: asyncio.TimerHandle | None = None
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
        self.chunks.append((time.monotonic_ns(), data))
        if not self._quiet_s or not self.subscribed.is_set():
            self.acknowledge()
        elif self._timer is None:
            self._wait()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._quiet_s, self._acknowledge_if_quiet)

    def _acknowledge_if_quiet(self) -> None:
        self._timer = None
        if time.monotonic_ns() - self.chunks[-1][0] < 1e9 * self._quiet_s:
            self._wait()
        else:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Acknowledge what has arrived since the last time."""
        data = self._rest + b"".join(chunk for _, chunk in self.chunks[self._seen :])
        self._seen = len(self.chunks)
        end = 0
        answers = []
        for begin, body, packet_end in packets(data):
            end = packet_end
            if data[begin] & _TYPE == _PUBLISH:
                if data[begin] & _QOS:
                    at = body + 2 + int.from_bytes(data[body : body + 2])
                    answers.append(_PUBACK + data[at : at + 2])
            elif data[begin] == _SUBACK:
                self.subscribed.set()
        self._rest = data[end:]
        if answers and self._transport is not None:
            self._transport.write(b"".join(answers))


def packets(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each whole MQTT packet begins, where its body begins, and where it ends."""
    begin = 0
    while True:
        length = shift = 0
        for at in range(begin + 1, min(begin + 1 + _MAX_LENGTH_BYTES, len(data))):
            length |= (data[at] & 0x7F) << shift
            shift += 7
            if data[at] <= 0x7F:  # noqa: PLR2004 - the last byte of a length has no high bit
                break
        else:
            return
        end = at + 1 + length
        if end > len(data):
            return
        yield begin, at + 1, end
        begin = end


def forecasts(chunks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, mqtt5.PublishPacket]]:
    """Every message in the chunks, with the time at which its last byte was read."""
    rest = b""
    for arrived_ns, chunk in chunks:
        data = rest + chunk
        end = 0
        for begin, _, end in packets(data):
            packet, _ = mqtt5.read(memoryview(data)[begin:end])
            if isinstance(packet, mqtt5.PublishPacket):
                yield arrived_ns, packet
        rest = data[end:]


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


async def collect(port: int, quiet_s: float) -> Subscriber:
    """Subscribe and collect until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    subscriber = Subscriber(quiet_s)
    await loop.create_connection(lambda: subscriber, "127.0.0.1", port)
    async with asyncio.timeout(10):
        await subscriber.subscribed.wait()
    # A garbage collection during a burst would count as latency of the daemon.
    gc.disable()
    print("subscribed", flush=True)
    await ended.wait()
    return subscriber


def main(port: int, path: Path, quiet_s: float) -> None:
    """Collect messages, then write them to the file."""
    chunks = asyncio.run(collect(port, quiet_s)).chunks
    lines = (line(*message) for message in forecasts(chunks))
    path.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), 0.0 if "at-once" in sys.argv[3:] else _QUIET_S)
