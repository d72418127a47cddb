"""The test helpers that start servers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import aiomqtt
import pytest

from tests.support.servers import MAX_WAIT_S, Mosquitto, accepts, mosquitto, mosquitto_sub, program


def publish(broker: Mosquitto, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = [program("mosquitto_pub"), "-h", broker.host, "-p", str(broker.port), "-V", "5"]
    return subprocess.run(
        [*where, "-q", "1", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_S,
    )


def test_a_subscriber_sees_messages_in_order_with_their_properties(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker:
        assert publish(broker, "-t", "a/kept", "-m", "before", "-r").returncode == 0
        with mosquitto_sub(broker.port, "a/#") as subscriber:
            expiry = ["-D", "publish", "message-expiry-interval", "60"]
            publish(broker, "-t", "a/b", "-m", '{"x": "…"}', *expiry)
            first, second = subscriber.next(), subscriber.next()
            assert subscriber.received() == []
    assert (first["topic"], first["payload"], first["retain"]) == ("a/kept", "before", 1)
    assert (second["payload"], second["qos"], second["retain"]) == ('{"x": "…"}', 1, 0)


async def test_the_broker_restarts_on_its_port_after_stop_and_kill(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker:
        for end in (broker.stop, broker.kill):
            pid = broker.pid
            end()
            assert not accepts(broker.port)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            broker.start()
            async with aiomqtt.Client(broker.host, broker.port) as client:
                await client.publish("x", "y", qos=1)
        broker.restart()
        assert accepts(broker.port)
    assert not accepts(broker.port)


def test_configuration_lines_take_effect(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous false") as broker:
        refused = publish(broker, "-t", "x", "-m", "y")
        assert refused.returncode != 0
        assert "not authori" in refused.stderr.lower()


def test_a_broker_that_cannot_start_reports_the_reason(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, "no_such_setting 1")
    with pytest.raises(pytest.fail.Exception, match="no_such_setting"):
        broker.start()
