"""Check that user errors end in one line and the documented exit code, without a traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.sandbox.recording import Playback
from model.features.definitions import CLOSE_FEATURES, Indicators
from tests.integration.harness import SECOND, Daemon, daemon, playback_of, sections, write_config
from tests.support.servers import (
    HOST,
    MAX_WAIT_S,
    Mosquitto,
    SandboxProcess,
    free_port,
    mosquitto,
    mosquitto_sub,
    password_file,
    sandbox_process,
)
from tests.support.tiny_models import Floats, promote

HISTORY = 900
LOOKBACK = 60
SECRET = "never-show-this"


@pytest.fixture(scope="module")
def exchange() -> Iterator[SandboxProcess]:
    with sandbox_process("--symbols", "2", "--slice-rows", "3600", "--history", "900") as ready:
        yield ready


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("broker")) as server:
        yield server


def past(playback: Playback, symbol: str) -> Floats:
    return playback.history(symbol, playback.origin_ms, playback.origin_ms + HISTORY * SECOND.ms)[1]


class Deployment:
    """A folder with a working configuration for tests to break."""

    def __init__(self, folder: Path, exchange: SandboxProcess, broker: Mosquitto) -> None:
        self.folder = folder
        self.http_port = free_port()
        self.playback = playback_of(exchange)
        self.sections = sections(
            exchange,
            broker.port,
            self.http_port,
            logging={"level": "WARNING"},
            # On a busy machine a forecast may be late, which is logged.
            inference={"latency_budget_ms": 60_000},
        )

    def promote(self, **how: Any) -> None:
        candles = {
            symbol: past(self.playback, symbol) for symbol in how.pop("symbols", self.symbols)
        }
        usual = {"timeframe": "1s", "indicators": Indicators(), "lookback": LOOKBACK}
        chosen: dict[str, Any] = usual | how
        promote(self.folder / "state" / "registry", candles, **chosen)

    @property
    def symbols(self) -> list[str]:
        return list(self.playback.symbols)

    def run(self, **env: str) -> tuple[int, list[str]]:
        """`candlecast run` until it ends by itself: exit code and lines of standard error."""
        return candlecast("run", "--config", str(write_config(self.folder, self.sections)), **env)

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        with daemon(write_config(self.folder, self.sections), self.http_port) as process:
            yield process


def candlecast(*arguments: str, **env: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_S,
        check=False,
        env=os.environ | env,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


@pytest.fixture
def deployment(tmp_path: Path, exchange: SandboxProcess, broker: Mosquitto) -> Deployment:
    return Deployment(tmp_path, exchange, broker)


def one_line(result: tuple[int, list[str]], code: int, *words: str) -> None:
    returned, lines = result
    assert len(lines) == 1, "\n".join(lines)
    assert lines[0].startswith("candlecast: ")
    for word in words:
        assert word in lines[0]
    assert returned == code


def test_no_champion(deployment: Deployment) -> None:
    day_one = "candlecast fetch && candlecast train --promote && candlecast run"
    one_line(deployment.run(), 2, "no model has been promoted", day_one)


def test_a_champion_without_its_folder(deployment: Deployment) -> None:
    deployment.promote()
    (bundle,) = (deployment.folder / "state" / "registry").glob("2*")
    bundle.rename(deployment.folder / "elsewhere")
    one_line(deployment.run(), 2, f"there is no model {bundle.name}", "cannot be served")


def test_a_champion_that_was_tampered_with(deployment: Deployment) -> None:
    deployment.promote()
    (step,) = (deployment.folder / "state" / "registry").glob("2*/step.onnx")
    step.write_bytes(step.read_bytes() + b"x")
    one_line(deployment.run(), 2, "step.onnx", "has changed", "cannot be served")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"timeframe": "1m"}, ("timeframe 1m but trading.timeframe is 1s",)),
        ({"features": CLOSE_FEATURES}, ("features [close, ", "but model.features is [log_return")),
        (
            {"features": CLOSE_FEATURES, "target": "close"},
            ("target close but model.target is log_return",),
        ),
        (
            {"indicators": Indicators(rsi_period=7)},
            ("rsi_period 7 but indicators.rsi_period is 14",),
        ),
        ({"lookback": 30}, ("lookback_periods 30 but model.lookback_periods is 60",)),
    ],
    ids=["timeframe", "features", "target", "indicators", "lookback"],
)
def test_a_champion_trained_for_something_else(
    deployment: Deployment, how: dict[str, Any], words: tuple[str, ...]
) -> None:
    deployment.promote(**how)
    one_line(deployment.run(), 2, "candlecast train --promote", *words)


def test_a_symbol_that_the_model_was_not_trained_on(deployment: Deployment) -> None:
    deployment.promote(symbols=deployment.symbols[:1])
    one_line(deployment.run(), 2, "was not trained on S01/USDT", "trading.symbols")


def test_a_symbol_that_the_exchange_lacks(deployment: Deployment) -> None:
    deployment.promote()
    candles = {symbol: past(deployment.playback, "S00/USDT") for symbol in ("S00/USDT", "S07/USDT")}
    promote(
        deployment.folder / "state" / "registry",
        candles,
        timeframe="1s",
        indicators=Indicators(),
        lookback=LOOKBACK,
    )
    deployment.sections["trading"]["symbols"] = ["S00/USDT", "S07/USDT"]
    one_line(deployment.run(), 2, "binance has no symbol S07/USDT", "did you mean S0")


def test_a_timeframe_that_the_exchange_lacks(deployment: Deployment) -> None:
    deployment.sections["trading"]["timeframe"] = "7m"
    deployment.promote(timeframe="7m")
    one_line(deployment.run(), 2, "binance has no timeframe 7m", "1m, 3m, 5m")


def test_an_unknown_exchange(deployment: Deployment) -> None:
    deployment.promote()
    deployment.sections["exchange"]["name"] = "binanse"
    one_line(deployment.run(), 2, "exchange.name", "binanse", "did you mean binance")


def test_an_exchange_that_cannot_be_reached(deployment: Deployment) -> None:
    deployment.promote()
    deployment.sections["exchange"]["endpoint"]["rest"] = f"http://{HOST}:{free_port()}"
    one_line(deployment.run(), 1, "binance: loading its markets: it cannot be reached")


def test_a_port_that_is_taken(deployment: Deployment) -> None:
    deployment.promote()
    with socket.socket() as taken:
        taken.bind((HOST, deployment.http_port))
        taken.listen()
        one_line(deployment.run(), 1, f"http.port {deployment.http_port}", "is taken")


def test_a_wrong_password(deployment: Deployment, tmp_path: Path) -> None:
    deployment.promote()
    passwords = password_file(tmp_path, "trader", "right")
    with mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}") as strict:
        deployment.sections["mqtt"] |= {"port": strict.port, "username": "trader"}
        result = deployment.run(CANDLECAST__MQTT__PASSWORD=SECRET)
    one_line(result, 1, "'trader'", "mqtt.username")
    assert SECRET not in result[1][0]


def test_a_broker_that_is_not_there_yet(deployment: Deployment, tmp_path: Path) -> None:
    deployment.promote()
    late = Mosquitto(tmp_path)
    deployment.sections["mqtt"]["port"] = late.port
    deployment.sections["logging"]["level"] = "INFO"
    with deployment.running() as process:
        process.until(lambda: "ready: 2 symbols" in process.log)
        status, body = process.get("/readyz")
        assert status == 503
        assert yaml.safe_load(body)["broker_connected"] is False
        assert process.get("/healthz")[0] == 200
        process.until(lambda: "no MQTT broker" in process.log)
        late.start()
        try:
            with mosquitto_sub(late.port, "candlecast/v1/binance/+/1s/prediction") as live:
                live.next()
            process.wait_ready()
            # It waits a moment to see whether the broker stays.
            process.until(lambda: "is back" in process.log)
            assert process.stop() == 0
        finally:
            late.kill()
        lines = [line for line in process.log.splitlines() if "MQTT" in line]
    assert len(lines) == 2, lines
    assert f"no MQTT broker at {HOST}:{late.port}" in lines[0]
    assert "the MQTT broker is back" in lines[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_signal_ends_it_cleanly(
    deployment: Deployment, number: signal.Signals, when: str
) -> None:
    deployment.promote()
    with deployment.running() as process:
        if when == "late":
            process.wait_ready()
            time.sleep(1.2)
        else:
            # As soon as the server answers; the history is still being requested.
            while process.get("/healthz")[0] == 0:
                assert process.process.poll() is None, process.log
        process.process.send_signal(number)
        assert process.process.wait(MAX_WAIT_S) == 0
        assert process.log == ""


def test_a_missing_configuration(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    one_line(candlecast("run", "--config", str(path)), 2, str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mqtt: {port: [", ("config.yaml", "line 1")),
        ("mqtt:\n  prot: 1883\n", ("mqtt.prot",)),
        ("mqtt: {port: 99999}", ("mqtt.port", "99999")),
        ("trading: {timeframe: 1x}", ("trading.timeframe", "1x")),
        ("http: {host: 0.0.0.0}", ("http: host 0.0.0.0", "username, password_file and tls")),
        ("- 1", ("config.yaml",)),
        ("exchange: &a [*a]", ("exchange",)),
    ],
    ids=[
        "broken",
        "unknown-key",
        "impossible",
        "timeframe",
        "open-to-the-world",
        "no-mapping",
        "loop",
    ],
)
def test_an_invalid_configuration(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    one_line(candlecast("run", "--config", str(path)), 2, *words)


def test_a_configuration_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\x00\xff\xfe")
    one_line(candlecast("run", "--config", str(path)), 2, "config.yaml")


def test_wrong_usage() -> None:
    code, lines = candlecast("run", "--colour", "red")
    assert code == 2
    assert "unrecognized arguments: --colour red" in lines[-1]
