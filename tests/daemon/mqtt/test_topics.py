"""Topics have the documented form, and no symbol reaches beyond its level."""

from __future__ import annotations

import doctest

import pytest

import daemon.mqtt.topics
from daemon.mqtt.topics import batch_topic, forming_topic, prediction_topic, status_topic


def test_topics_are_the_contract() -> None:
    assert prediction_topic("okx", "BTC/USDT:USDT", "1m") == (
        "candlecast/v1/okx/BTC-USDT-USDT/1m/prediction"
    )
    assert forming_topic("okx", "BTC/USDT", "5m") == "candlecast/v1/okx/BTC-USDT/5m/forming"
    assert batch_topic("binance", "15m") == "candlecast/v1/binance/15m/batch"
    assert status_topic("trader-1") == "candlecast/v1/status/trader-1"


@pytest.mark.parametrize("text", ["", "#", "BTC/+", "a\0b"])
def test_wildcards_and_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be a level of an MQTT topic"):
        prediction_topic("binance", text, "1m")
    with pytest.raises(ValueError, match="cannot be a level of an MQTT topic"):
        status_topic(text)


def test_the_examples_run() -> None:
    assert doctest.testmod(daemon.mqtt.topics) == (0, 1)
