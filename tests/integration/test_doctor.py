"""`candlecast doctor` finds faults of real parts and names a remedy for each."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mqtt5
import pytest

from config.settings import load
from daemon.cli.main import main
from daemon.doctor.broker_check import check_broker
from daemon.doctor.findings import Finding
from daemon.factories import broker_of
from daemon.runtime.clock import SystemClock
from tests.integration.harness import daemon, playback_of, promote_drawn, sections, write_config
from tests.integration.test_wall_clock import faked, set_clock
from tests.support.certificates import Authority
from tests.support.scripted_broker import ScriptedBroker, acknowledged, always
from tests.support.servers import (
    HOST,
    MAX_WAIT_S,
    Mosquitto,
    SandboxProcess,
    free_port,
    mosquitto,
    password_file,
    sandbox_process,
)


class Deployment(NamedTuple):
    """Where everything is as it should be."""

    folder: Path
    exchange: SandboxProcess
    broker: Mosquitto
    http_port: int

    def config(self, folder: Path, **more: Any) -> Path:
        """A configuration with some sections changed; its state is the deployment's."""
        paths = {"paths": {"state": str(self.folder / "state")}}
        exchange = more.pop("exchange", {})
        chosen = sections(self.exchange, self.broker.port, self.http_port, **(paths | more))
        chosen["exchange"] |= exchange
        return write_config(folder, chosen)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    with (
        mosquitto(folder) as broker,
        sandbox_process("--symbols", "2", "--history", "900") as exchange,
    ):
        promote_drawn(folder, playback_of(exchange))
        yield Deployment(folder, exchange, broker, free_port())


def findings(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """The exit code, and each topic's line with its advice."""
    code = main(["doctor", "--config", str(config)])
    shown: dict[str, str] = {}
    topic = ""
    output = capsys.readouterr()
    shown["verdict"] = output.err
    for line in output.out.splitlines():
        if line[0] in "✓✗–":
            topic = line.split()[1]
        shown[topic] = f"{shown.get(topic, '')}{line}\n"
    return code, shown


def test_doctor_passes_a_healthy_setup(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = findings(deployment.config(tmp_path), capsys)
    assert code == 0, shown
    for topic in ("config", "exchange", "clock", "stream", "broker", "model", "state", "http"):
        assert shown[topic].startswith("✓"), shown[topic]
    assert "binance answers and has all 2 symbols at 1s" in shown["exchange"]
    assert f"{HOST}:{deployment.http_port} is free" in shown["http"]


def test_a_running_daemon_is_recognised(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = deployment.config(tmp_path)
    with daemon(config, deployment.http_port) as running:
        running.wait_ready()
        code, shown = findings(config, capsys)
        assert (code, running.process.poll()) == (0, None)
        assert f"the daemon runs on {HOST}:{deployment.http_port} and is ready" in shown["http"]
        assert running.stop() == 0


def test_each_thing_that_is_wrong_is_found(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several at once: none hides another."""
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        config = deployment.config(
            tmp_path,
            exchange={
                "endpoint": {
                    "rest": deployment.exchange.rest_url,
                    "ws": f"ws://{HOST}:{free_port()}",
                }
            },
            mqtt={"port": free_port()},
            http={"port": port},
            history={"keep_days": 36_000},
            paths={"state": str(tmp_path / "none")},
        )
        code, shown = findings(config, capsys)
    assert code == 1
    assert shown["exchange"].startswith("✓")
    expected = {
        "stream": "check that the firewall or proxy allows websockets",
        "broker": "start it, or check mqtt.host",
        "model": "candlecast train --promote",
        "disk": "history.keep_days",
        "http": "set another http.port",
    }
    for topic, advice in expected.items():
        assert shown[topic].startswith("✗"), shown
        assert advice in shown[topic]
    assert shown["verdict"] == f"candlecast: {len(expected)} problems found.\n"
    # The checks create nothing.
    assert not (tmp_path / "none").exists()


def test_an_unreachable_exchange(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = f"http://{HOST}:{free_port()}"
    config = deployment.config(tmp_path, exchange={"endpoint": {"rest": dead, "ws": None}})
    code, shown = findings(config, capsys)
    assert code == 1
    assert "cannot be reached" in shown["exchange"]
    assert "→ check the network" in shown["exchange"]
    assert "stream" not in shown


def test_a_symbol_that_the_exchange_does_not_list(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = deployment.config(tmp_path, trading={"symbols": ["S00/USDT", "NONE/USDT"]})
    code, shown = findings(config, capsys)
    assert code == 1
    assert "NONE/USDT" in shown["exchange"]
    assert shown["exchange"].startswith("✗")
    assert "was not trained on NONE/USDT" in shown["model"]


def test_a_folder_that_cannot_be_written_and_a_foreign_address(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = Authority(tmp_path).issue("pages")
    (tmp_path / "secret").write_text("secret")
    config = deployment.config(
        tmp_path,
        paths={"state": "/proc/candlecast"},
        http={
            "host": "192.0.2.1",
            "username": "eve",
            "password_file": str(tmp_path / "secret"),
            "tls": {"certificate_file": str(pair.certificate), "key_file": str(pair.key)},
        },
    )
    code, shown = findings(config, capsys)
    assert code == 1
    assert "/proc/candlecast: cannot be written to" in shown["state"]
    assert "disk" not in shown
    assert "set http.host to an address of this machine" in shown["http"]


def test_a_damaged_model(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promote_drawn(tmp_path, playback_of(deployment.exchange))
    (step,) = (tmp_path / "state" / "registry").rglob("step.onnx")
    step.chmod(0o600)
    step.write_bytes(step.read_bytes()[:-1] + b"?")
    config = deployment.config(tmp_path, paths={"state": str(tmp_path / "state")})
    code, shown = findings(config, capsys)
    assert code == 1
    assert shown["model"].startswith("✗")
    assert "step.onnx" in shown["model"]


def test_a_clock_that_is_off(deployment: Deployment, tmp_path: Path) -> None:
    rc = tmp_path / "clock"
    set_clock(rc, "-90")
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "doctor", "--config", str(deployment.config(tmp_path))],
        capture_output=True, text=True, timeout=MAX_WAIT_S, check=False, env=os.environ | faked(rc),
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    (clock,) = [line for line in done.stdout.splitlines() if line.startswith("✗ clock")]
    found = re.search(r"this machine's is (\d+\.\d)", clock)
    assert found is not None, clock
    # Measured over a round trip, which takes long on a busy machine.
    assert float(found[1]) == pytest.approx(90.0, abs=3.0)
    assert "timedatectl set-ntp true" in done.stdout


def test_a_wrong_configuration_is_exit_code_2(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"mqtt": {"prot": 1}})
    assert main(["doctor", "--config", str(config)]) == 2


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    dead = f"http://{HOST}:{free_port()}"
    exchange = {"endpoint": {"rest": dead}}
    config = write_config(tmp_path, {"exchange": exchange, "mqtt": {"port": free_port()}})
    with subprocess.Popen(
        [sys.executable, "-m", "daemon", "doctor", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("✓ config")
        process.stdout.close()
        assert (process.stderr.read(), process.wait(MAX_WAIT_S)) == ("", 0)


async def asked(tmp_path: Path, version: str, *acl: str, right: bool = True) -> Finding:
    """What is found at a broker with a password and an access list."""
    (tmp_path / "acl").write_text("user eve\n" + "".join(f"{line}\n" for line in acl))
    (tmp_path / "secret").write_text("right" if right else "wrong")
    lines = (
        "allow_anonymous false",
        f"password_file {password_file(tmp_path, 'eve', 'right')}",
        f"acl_file {tmp_path / 'acl'}",
    )
    with mosquitto(tmp_path, *lines) as broker:
        login = {"username": "eve", "password_file": str(tmp_path / "secret")}
        mqtt = {"port": broker.port, "version": version, "instance": "tester", **login}
        settings = load(write_config(tmp_path, {"mqtt": mqtt}), {})
        return await check_broker(broker_of(settings), "tester", SystemClock())


ALL = "topic readwrite candlecast/v1/#"
WRITE = "topic write candlecast/v1/#"
OTHER = "topic readwrite elsewhere/#"


@pytest.mark.may_block(reason="starts a broker")
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_broker_that_gives_every_right(tmp_path: Path, version: str) -> None:
    finding = await asked(tmp_path, version, ALL)
    assert finding.good is True
    assert finding.text.endswith("accepts and delivers messages")


@pytest.mark.may_block(reason="starts a broker")
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_broker_that_denies_publishing(tmp_path: Path, version: str) -> None:
    finding = await asked(tmp_path, version, OTHER)
    assert finding.good is False
    assert re.match(r"\w+ user 'eve' (to )?write to candlecast/v1/#", finding.advice)


@pytest.mark.may_block(reason="starts a broker")
async def test_a_broker_that_lets_us_write_only(tmp_path: Path) -> None:
    finding = await asked(tmp_path, "5", WRITE)
    assert finding.good is None
    assert "user 'eve' may not read them, which is not required" in finding.text


@pytest.mark.may_block(reason="starts a broker")
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_broker_that_refuses_the_password(tmp_path: Path, version: str) -> None:
    finding = await asked(tmp_path, version, ALL, right=False)
    assert finding.good is False
    assert "wrong" not in finding.text
    assert "login" in finding.advice or "password" in finding.advice


LIMITS = {
    "retain_available false": "it keeps no retained messages",
    "max_qos 0": "QoS 0 only",
    "max_packet_size 50000": "packets of at most 50000 bytes",
}


@pytest.mark.may_block(reason="starts a broker")
@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("lines", [(line,) for line in LIMITS] + [tuple(LIMITS)])
async def test_missing_features_of_a_broker_are_reported(
    tmp_path: Path, version: str, lines: tuple[str, ...]
) -> None:
    with mosquitto(tmp_path, *lines) as broker:
        finding = await found_at(tmp_path, broker.port, version)
        assert finding.good is True, finding
        assert "accepts and delivers messages" in finding.text
        for line in lines:
            # Version 3.1.1 has no field for the packet limit.
            assert (LIMITS[line] in finding.text) == (version == "5" or "packet" not in line)


async def found_at(folder: Path, port: int, version: str = "5") -> Finding:
    mqtt = {"port": port, "version": version, "instance": "tester"}
    settings = load(write_config(folder, {"mqtt": mqtt}), {})
    return await check_broker(broker_of(settings), "tester", SystemClock())


@pytest.mark.may_block(reason="starts a broker")
async def test_a_broker_that_takes_no_forecast_for_its_length(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "max_packet_size 500") as broker:
        finding = await found_at(tmp_path, broker.port)
    assert finding.good is False
    assert "accepts packets of 500 bytes at most" in finding.text
    assert finding.advice.startswith("raise its limit")


@pytest.mark.may_block(reason="reads a configuration")
@pytest.mark.parametrize(
    ("answer", "text", "advice"),
    [
        (
            mqtt5.ConnAckPacket(
                reason_code=mqtt5.ConnAckReasonCode.SERVER_MOVED, server_reference="b.example"
            ),
            "(server moved: b.example)",
            "set mqtt.host and mqtt.port to it",
        ),
        (
            mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.QUOTA_EXCEEDED),
            "(quota exceeded; raise the broker's quota)",
            "start it, or check mqtt.host",
        ),
    ],
)
async def test_the_reason_of_a_refusing_broker_is_shown(
    tmp_path: Path, answer: mqtt5.ConnAckPacket, text: str, advice: str
) -> None:
    async with ScriptedBroker(always(answer.write()), acknowledged) as broker:
        finding = await found_at(tmp_path, broker.port)
    assert finding.good is False
    assert text in finding.text
    assert finding.advice.startswith(advice)
