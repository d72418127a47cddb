"""Fuzz packets from the broker, cut into pieces of any size, in both MQTT versions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from daemon.mqtt.codec import Codec, Codec5, Codec311
from daemon.mqtt.connection import MqttConnection
from daemon.mqtt.errors import ConnectionLostError
from daemon.mqtt.outbox import Outgoing
from model.core.errors import BrokerError
from tests.fuzz.target import Target

CONNACK_5 = bytes.fromhex("20 06 00 00 03 21 00 14")
PUBACK_5 = bytes.fromhex("40 02 00 01")
DENIED_5 = bytes.fromhex("40 04 00 01 87 00")
DISCONNECT_5 = bytes.fromhex("e0 02 8b 00")
PINGRESP = bytes.fromhex("d0 00")
CONNACK_311 = bytes.fromhex("20 02 00 00")
REFUSED_311 = bytes.fromhex("20 02 00 05")
MESSAGE = Outgoing("k", "t", b"x", qos=1, retain=False)


def packets(make: Callable[[], Codec]) -> Callable[[bytes], None]:
    """Feed a link with the input, cut as its first byte specifies."""
    loop: list[asyncio.AbstractEventLoop] = []

    async def feed(data: bytes) -> None:
        codec = make()
        acked: list[Any] = []
        link = MqttConnection(codec, acked.extend, lambda *what: acked.append(what), lambda: None)
        link._receive_maximum = 20  # noqa: SLF001 - as if logged in
        link.send([(MESSAGE, None)] * 3, 0.0)
        size = data[0] % 16 + 1 if data else 1
        for at in range(1, len(data), size):
            link.data_received(data[at : at + size])
            if link.lost.done():
                break
        assert len(acked) <= 3
        if link.lost.done():
            assert isinstance(link.lost.exception(), (ConnectionLostError, BrokerError))
        _read_alone(codec, data)

    def one_input(data: bytes) -> None:
        if not loop:
            loop.append(asyncio.new_event_loop())
        loop[0].run_until_complete(feed(data))

    return one_input


def _read_alone(codec: Codec, data: bytes) -> None:
    try:
        _, length = codec.read(memoryview(data))
    except (IndexError, BrokerError):
        return
    assert 2 <= length <= len(data)


_SEEDS_5 = (CONNACK_5, PUBACK_5, DENIED_5, DISCONNECT_5, PINGRESP)
_SEEDS_311 = (CONNACK_311, REFUSED_311, PUBACK_5, PINGRESP)

TARGETS = {
    "mqtt5": Target(packets(Codec5), tuple(b"\x0f" + s for s in (*_SEEDS_5, b"".join(_SEEDS_5)))),
    "mqtt311": Target(packets(Codec311), tuple(b"\x02" + s for s in _SEEDS_311)),
}
