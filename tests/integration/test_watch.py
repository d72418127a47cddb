"""Test `candlecast watch` on a terminal and in a pipe with a real broker."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mqtt5
import pytest

from tests.support.certificates import Authority
from tests.support.scripted_broker import ScriptedBroker, acknowledged, always
from tests.support.servers import (
    HOST,
    MAX_WAIT_S,
    Mosquitto,
    free_port,
    mosquitto,
    password_file,
    program,
)
from tests.support.terminal import terminal

START_MS = int(time.time()) * 1_000
WATCH = [sys.executable, "-m", "daemon", "watch"]


def forecast(symbol: str, at: int, valid_s: float = 60.0) -> dict[str, Any]:
    """A forecast as the daemon publishes it, as far as it is shown."""
    now_ms = int(time.time() * 1_000)
    close_ms = START_MS + at * 1_000
    return {
        "symbol": symbol,
        "exchange": "binance",
        "timeframe": "1s",
        "seq": close_ms // 1_000,
        "candle_close_ms": close_ms,
        "target_close_ms": close_ms + 1_000,
        "valid_until_ms": now_ms + int(valid_s * 1_000),
        "last_close": 97_000.0 + at,
        "predicted_close": 97_012.5,
        "predicted_return": 0.000129,
        "interval": None,
        "latency_ms": {"ready": 0.5},
        "late": False,
    }


def publish(broker: Mosquitto, message: dict[str, Any] | str, *options: str) -> None:
    text = message if isinstance(message, str) else json.dumps(message)
    name = "X" if isinstance(message, str) else message["symbol"].replace("/", "-")
    topic = f"candlecast/v1/binance/{name}/1s/prediction"
    where = ["-h", HOST, "-p", str(broker.port), "-t", topic, *options]
    subprocess.run([program("mosquitto_pub"), *where, "-m", text], check=True, timeout=MAX_WAIT_S)


@contextmanager
def piped(*options: str) -> Iterator[subprocess.Popen[str]]:
    """A watch that writes into pipes."""
    process = subprocess.Popen(
        [*WATCH, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(MAX_WAIT_S)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path) as running:
        yield running


def test_on_a_terminal(broker: Mosquitto) -> None:
    publish(broker, forecast("BTC/USDT", 0), "-r")
    publish(broker, forecast("ETH/USDT", 0, valid_s=2.0), "-r")
    with terminal(*WATCH, "--host", HOST, "--port", str(broker.port)) as shown:
        shown.until(r"BTC/USDT +\S+ +97000.00 +97012.50 ")
        publish(broker, forecast("BTC/USDT", 1))
        shown.until(r"BTC/USDT +\S+ +97001.00 +97012.50 .*\+0\.001%")
        shown.until(r"ETH/USDT +\S+ +97000.00 +no forecast")
        publish(broker, "{]")
        shown.until("3 forecasts, 0 late, 1 unreadable")
        shown.type("/eth\r")
        shown.until(r"filter: eth\s")
        shown.until("ETH/USDT")
        shown.type("\x1b")
        shown.until("BTC/USDT")
        broker.stop()
        shown.until(rf"no broker at {HOST}:{broker.port} .*trying again")
        broker.start()
        shown.until(r"candlecast watch[^\n]*\n\s*\n")
        shown.type("q")
        assert shown.end() == 0
        # The keys are the shell's again.
        assert shown.attributes() == shown.before


def test_ctrl_c_is_a_clean_end(broker: Mosquitto) -> None:
    with terminal(*WATCH, "--host", HOST, "--port", str(broker.port)) as shown:
        shown.until("no forecast yet")
        shown.type("\x03")
        assert shown.end() == 0
        assert "Traceback" not in shown.seen
        assert shown.attributes() == shown.before


def test_a_terminal_without_cursor_movement_gets_plain_lines(broker: Mosquitto) -> None:
    publish(broker, forecast("BTC/USDT", 0), "-r")
    with terminal(*WATCH, "--host", HOST, "--port", str(broker.port), kind="dumb") as shown:
        shown.until(r"BTC/USDT seq \d+ close 97000")
        shown.type("\x03")
        assert shown.end() == 0


def test_a_pipe_gets_one_line_per_forecast_also_after_a_broker_restart(broker: Mosquitto) -> None:
    with piped("--host", HOST, "--port", str(broker.port)) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        publish(broker, forecast("BTC/USDT", 0), "-r")
        assert run.stdout.readline().startswith("BTC/USDT seq ")
        broker.restart()
        publish(broker, forecast("BTC/USDT", 1), "-r")
        # The broker forgot what it had retained, so this is the new one.
        line = run.stdout.readline()
        assert "close 97001 → 97012.5" in line
        assert "before: +0.001%" in line
        run.send_signal(signal.SIGINT)
        assert run.wait(MAX_WAIT_S) == 0
        assert run.stderr.read() == ""


def test_a_closed_pipe_is_no_error(broker: Mosquitto) -> None:
    with piped("--host", HOST, "--port", str(broker.port)) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        publish(broker, forecast("BTC/USDT", 0), "-r")
        run.stdout.readline()
        run.stdout.close()
        publish(broker, forecast("BTC/USDT", 1))
        assert run.wait(MAX_WAIT_S) == 0
        assert run.stderr.read() == ""


def test_no_broker_is_one_clear_line() -> None:
    port = free_port()
    command = [*WATCH, "--host", HOST, "--port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_WAIT_S, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"candlecast: cannot read from the MQTT broker at {HOST}:{port}: "
    )
    assert done.stderr.count("\n") == 1


async def test_a_broker_that_takes_no_such_subscription_is_one_clear_line() -> None:
    accepted = always(mqtt5.ConnAckPacket(wildcard_subscription_available=False).write())
    async with ScriptedBroker(accepted, acknowledged) as broker:
        command = [*WATCH, "--host", HOST, "--port", str(broker.port)]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        async with asyncio.timeout(MAX_WAIT_S):
            _, error_output = await process.communicate()
    assert process.returncode == 1
    assert error_output.startswith(
        f"candlecast: the MQTT broker at {HOST}:{broker.port} denies reading ".encode()
    )
    assert b"Wildcard" in error_output
    assert error_output.count(b"\n") == 1


def test_it_logs_in(tmp_path: Path) -> None:
    secret = "correct horse battery"
    lines = ["allow_anonymous false", f"password_file {password_file(tmp_path, 'eve', secret)}"]
    (tmp_path / "good").write_text(f"{secret}\n")
    (tmp_path / "bad").write_text("wrong\n")
    with mosquitto(tmp_path, *lines) as broker:
        login = ["--host", HOST, "--port", str(broker.port), "--username", "eve"]
        command = [*WATCH, *login, "--password-file", str(tmp_path / "bad")]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=MAX_WAIT_S, check=False
        )
        assert done.returncode == 1
        assert "ot authorized" in done.stderr or "Bad user name" in done.stderr
        with terminal(*WATCH, *login, "--password-file", str(tmp_path / "good")) as shown:
            publish(broker, forecast("BTC/USDT", 0), "-r", "-u", "eve", "-P", secret)
            shown.until("BTC/USDT")
            shown.type("q")
            assert shown.end() == 0


def test_it_reads_by_tls_with_the_settings_of_the_daemon(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("broker")
    lines = [f"certfile {server.certificate}", f"keyfile {server.key}"]
    with mosquitto(tmp_path, *lines) as broker:
        config = tmp_path / "config.yaml"
        config.write_text(f"mqtt: {{port: {broker.port}, tls: {{ca_file: {authority.ca}}}}}\n")
        publish(broker, forecast("BTC/USDT", 0), "-r", "--cafile", str(authority.ca))
        with terminal(*WATCH, "--config", str(config)) as shown:
            shown.until("BTC/USDT")
            shown.type("q")
            assert shown.end() == 0


def test_without_a_host_the_address_comes_from_the_configuration(
    broker: Mosquitto, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"mqtt: {{port: {broker.port}}}\n")
    with terminal(*WATCH, "--config", str(config)) as shown:
        shown.until(f"candlecast watch · {HOST}:{broker.port}")
        shown.type("q")
        assert shown.end() == 0


@pytest.mark.parametrize(
    "options", [["--host", HOST, "--port", "x"], ["--config", "/nowhere.yaml"]]
)
def test_a_wrong_setting_is_wrong_usage(options: list[str]) -> None:
    done = subprocess.run(
        [*WATCH, *options], capture_output=True, text=True, timeout=MAX_WAIT_S, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
