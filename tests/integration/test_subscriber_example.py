"""Test the example subscriber against a real broker."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from daemon.mqtt.topics import prediction_topic, status_topic
from model.forecasts.forecast import Forecast
from tests.support.sample_forecasts import forecast_at, payload
from tests.support.servers import MAX_WAIT_S, mosquitto

NOW_MS = 1_776_859_620_012
AHEAD_MS = 10 * 60_000


def forecast(
    symbol: str = "BTC/USDT", *, now_ms: int = NOW_MS, valid_ms: int = 60_000, late: bool = False
) -> Forecast:
    return forecast_at(now_ms + valid_ms - 60_000, symbol, predicted_close=78130.1, late=late)


def document(one: Forecast, instance: str = "trader-1") -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(payload(one, instance))
    return decoded


@pytest.fixture
def guard(repository: Path) -> Any:
    spec = importlib.util.spec_from_file_location(
        "subscriber", repository / "examples" / "subscriber.py"
    )
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example.Guard()


@pytest.mark.parametrize("state", ["starting", "stopping", "offline", None])
def test_only_forecasts_of_an_online_instance_are_used(guard: Any, state: str | None) -> None:
    if state is not None:
        guard.on_status({"instance": "trader-1", "state": state})
    message = document(forecast())
    assert guard.refusal(message, NOW_MS) == f"its instance is {state or 'absent'}"
    guard.on_status({"instance": "trader-1", "state": "degraded"})
    assert guard.refusal(message, NOW_MS) is None
    guard.on_disconnected()
    assert guard.refusal(document(forecast("ETH/USDT")), NOW_MS) == "its instance is absent"


def test_late_expired_and_duplicate_are_refused(guard: Any) -> None:
    guard.on_status({"instance": "trader-1", "state": "online"})
    assert guard.refusal(document(forecast(late=True)), NOW_MS) == "late"
    message = document(forecast())
    assert guard.refusal(message, NOW_MS + 60_000) == "expired"
    assert guard.refusal(message, NOW_MS + 59_999) is None
    assert guard.refusal(message, NOW_MS) == "duplicate"
    assert guard.refusal(document(forecast(valid_ms=1)), NOW_MS) == "duplicate"  # older
    assert guard.refusal(document(forecast(valid_ms=60_001)), NOW_MS) is None
    assert guard.refusal(document(forecast("ETH/USDT")), NOW_MS) is None


class Publisher:
    """What the daemon would send, from a client of its own."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def forecast(self, one: Forecast, instance: str = "trader-1") -> None:
        topic = prediction_topic(one.exchange, one.symbol, one.timeframe)
        self._publish(topic, payload(one, instance))

    def status(self, state: str, instance: str = "trader-1") -> None:
        content = {"schema": 1, "instance": instance, "state": state}
        self._publish(status_topic(instance), json.dumps(content).encode())

    def _publish(self, topic: str, content: bytes) -> None:
        self._client.publish(topic, content, qos=1, retain=True).wait_for_publish(MAX_WAIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def example(repository: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(repository / "examples" / "subscriber.py"), "127.0.0.1", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_the_example_runs_against_a_real_broker(repository: Path, tmp_path: Path) -> None:
    # Forecasts must not expire on a busy machine before the example has read them.
    now_ms = time.time_ns() // 1_000_000 + AHEAD_MS
    with mosquitto(tmp_path) as broker:
        publisher = Publisher(broker.port)
        # Retained before the bot connects: it needs the status of instances first.
        publisher.forecast(forecast(now_ms=now_ms))
        publisher.status("online")
        with example(repository, broker.port) as bot:
            assert bot.stdout is not None
            assert bot.stderr is not None
            name = f"BTC/USDT 1m #{(now_ms + 60_000) // 60_000 - 1}"
            lines = iter(bot.stdout.readline, "")
            assert next(lines) == "trader-1 is online\n"
            assert next(lines) == f"{name}: 78130.1\n"
            publisher.forecast(forecast(now_ms=now_ms))
            assert next(lines) == f"{name}: refused, duplicate\n"
            publisher.forecast(forecast("ETH/USDT", now_ms=now_ms, late=True))
            assert next(lines).endswith(": refused, late\n")
            publisher.forecast(forecast("SOL/USDT", now_ms=now_ms, valid_ms=-AHEAD_MS))
            assert next(lines).endswith(": refused, expired\n")
            publisher.forecast(forecast("XRP/USDT", now_ms=now_ms), instance="trader-2")
            assert next(lines).endswith(": refused, its instance is absent\n")
            publisher.status("offline")
            assert next(lines) == "trader-1 is offline\n"
            publisher.forecast(forecast("BNB/USDT", now_ms=now_ms))
            assert next(lines).endswith(": refused, its instance is offline\n")
            broker.kill()
            complaints = iter(bot.stderr.readline, "")  # paho may print something of its own first
            assert any(line.startswith("no broker: ") for line in complaints)
            broker.start()
            publisher.close()
            publisher = Publisher(broker.port)
            publisher.status("online")
            assert next(lines) == "trader-1 is online\n"
            publisher.forecast(forecast(now_ms=now_ms, valid_ms=60_001))
            assert next(lines).endswith(": 78130.1\n")
        publisher.close()
