"""What a broker may send to a publisher; anything else is one clear error."""

from __future__ import annotations

import pytest

from daemon.mqtt_codec import Accepted, Acked, Codec, Codec5, Codec311, Refused
from model.errors import BrokerError


@pytest.mark.parametrize(
    ("codec", "packet", "event"),
    [
        (Codec5(), "20 06 00 00 03 21 00 14", Accepted(20, None)),
        (Codec5(), "20 03 00 87 00", Refused("not authorized", final=True)),
        (Codec5(), "40 02 01 02", Acked(0x102, None)),
        (Codec5(), "40 04 00 01 87 00", Acked(1, "not authorized")),
        (Codec5(), "40 04 00 01 10 00", Acked(1, None)),
        (Codec5(), "e0 02 8b 00", Refused("server shutting down", final=False)),
        (Codec5(), "d0 00", None),
        (Codec311(), "20 02 00 00", Accepted(65_535, None)),
        (Codec311(), "20 02 00 05", Refused("not authorized", final=True)),
        (Codec311(), "20 02 00 03", Refused("server unavailable", final=False)),
        (Codec311(), "40 02 01 02", Acked(0x102, None)),
        (Codec311(), "d0 00", None),
    ],
)
def test_each_packet_says_one_thing(codec: Codec, packet: str, event: object) -> None:
    raw = bytes.fromhex(packet)
    assert codec.read(memoryview(raw + b"\x40")) == (event, len(raw))
    for cut in range(len(raw)):
        with pytest.raises(IndexError):
            codec.read(memoryview(raw[:cut]))


@pytest.mark.parametrize("codec", [Codec5(), Codec311()])
@pytest.mark.parametrize("packet", ["20 ff ff ff 7f", "40 ff ff ff ff", "20 80 80 08", "40 01 00"])
def test_what_is_not_mqtt_is_refused_before_it_fills_the_memory(codec: Codec, packet: str) -> None:
    with pytest.raises(BrokerError, match="sends what is not MQTT"):
        codec.read(memoryview(bytes.fromhex(packet)))


@pytest.mark.parametrize("packet", ["38 04 00 01 87 00", "30 02 00 00", "82 05 00 01 00 00 00"])
def test_what_a_publisher_is_never_sent_is_refused(packet: str) -> None:
    """The library would end the process over the first of them."""
    with pytest.raises(BrokerError, match="nobody asked for"):
        Codec5().read(memoryview(bytes.fromhex(packet)))
