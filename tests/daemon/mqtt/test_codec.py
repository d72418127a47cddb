"""Packets from a broker are decoded; invalid ones raise one clear error."""

from __future__ import annotations

import pytest

from daemon.mqtt.codec import Accepted, Acked, Codec, Codec5, Codec311, Login
from daemon.mqtt.limits import NO_LIMITS, NO_QOS_1, NO_RETAIN, Limits
from daemon.mqtt.refusals import Refusal
from model.core.errors import BrokerError

LOGIN_ADVICE = "check mqtt.username and the password"


@pytest.mark.parametrize(
    ("codec", "packet", "event"),
    [
        (Codec5(), "20 06 00 00 03 21 00 14", Accepted(20, None)),
        (
            Codec5(),
            "20 03 00 87 00",
            Refusal("not authorized", permanent=True, advice=LOGIN_ADVICE),
        ),
        (Codec5(), "40 02 01 02", Acked(0x102, None)),
        (Codec5(), "40 04 00 01 87 00", Acked(1, "not authorized")),
        (Codec5(), "40 04 00 01 10 00", Acked(1, None)),
        (Codec5(), "e0 02 8b 00", Refusal("server shutting down", permanent=False)),
        (Codec5(), "20 05 00 00 02 24 00", Accepted(65_535, None, None, NO_QOS_1)),
        (Codec5(), "20 05 00 00 02 24 01", Accepted(65_535, None, None, NO_LIMITS)),
        (Codec5(), "20 05 00 00 02 25 00", Accepted(65_535, None, None, NO_RETAIN)),
        (Codec5(), "20 06 00 00 03 13 00 05", Accepted(65_535, 5)),
        (Codec5(), "20 08 00 00 05 27 00 00 01 00", Accepted(65_535, None, 256)),
        (Codec5(), "20 08 00 00 05 12 00 02 61 62", Accepted(65_535, None)),
        (
            Codec5(),
            "20 03 00 9a 00",
            Refusal("retain not supported", permanent=False, supported=NO_RETAIN),
        ),
        (
            Codec5(),
            "e0 02 9b 00",
            Refusal("qos not supported", permanent=False, supported=NO_QOS_1),
        ),
        (
            Codec5(),
            "20 08 00 9d 05 1c 00 02 62 32",
            Refusal("server moved: b2", permanent=True, advice="set mqtt.host and mqtt.port to it"),
        ),
        (
            Codec5(),
            "20 08 00 88 05 1f 00 02 0a 0a",
            Refusal("server unavailable", permanent=False),
        ),
        (
            Codec5(),
            "20 02 00 01",
            Refusal("it speaks MQTT 3.1.1", permanent=True, advice="set mqtt.version: 3.1.1"),
        ),
        (Codec5(), "d0 00", None),
        (Codec311(), "20 02 00 00", Accepted(65_535, None)),
        (Codec311(), "20 02 00 05", Refusal("not authorized", permanent=True, advice=LOGIN_ADVICE)),
        (Codec311(), "20 02 00 03", Refusal("server unavailable", permanent=False)),
        (Codec311(), "40 02 01 02", Acked(0x102, None)),
        (Codec311(), "d0 00", None),
    ],
)
def test_each_packet_is_parsed_into_one_value(codec: Codec, packet: str, event: object) -> None:
    raw = bytes.fromhex(packet)
    assert codec.read(memoryview(raw + b"\x40")) == (event, len(raw))
    for cut in range(len(raw)):
        with pytest.raises(IndexError):
            codec.read(memoryview(raw[:cut]))


@pytest.mark.parametrize("codec", [Codec5(), Codec311()])
@pytest.mark.parametrize("packet", ["20 ff ff ff 7f", "40 ff ff ff ff", "20 80 80 08", "40 01 00"])
def test_bytes_other_than_mqtt_are_refused_before_they_fill_the_memory(
    codec: Codec, packet: str
) -> None:
    with pytest.raises(BrokerError, match="sends invalid MQTT"):
        codec.read(memoryview(bytes.fromhex(packet)))


@pytest.mark.parametrize("packet", ["38 04 00 01 87 00", "30 02 00 00", "82 05 00 01 00 00 00"])
def test_packets_that_no_publisher_receives_are_refused(packet: str) -> None:
    """The library would end the process over the first of them."""
    with pytest.raises(BrokerError, match="unexpected type"):
        Codec5().read(memoryview(bytes.fromhex(packet)))


@pytest.mark.parametrize(
    ("limits", "flags"),
    [
        (NO_LIMITS, 0b0010_1110),
        (NO_RETAIN, 0b0000_1110),
        (NO_QOS_1, 0b0010_0110),
        (Limits(0, retains=False), 0b0000_0110),
    ],
)
@pytest.mark.parametrize("codec", [Codec5(), Codec311()])
def test_the_will_asks_for_no_more_than_the_limits_allow(
    codec: Codec, limits: Limits, flags: int
) -> None:
    packet = codec.connect(Login("me", None, None, 30, "status/me", b"{}", limits))
    # After the fixed header: two bytes of length, the name, the version, then the flags.
    assert packet[9] == flags


@pytest.mark.parametrize("packet", ["20 06 00 00 03 21 00 00", "20 08 00 00 05 27 00 00 00 00"])
def test_a_limit_of_zero_is_refused(packet: str) -> None:
    with pytest.raises(BrokerError, match="sends invalid MQTT 5"):
        Codec5().read(memoryview(bytes.fromhex(packet)))
