"""Check that a state folder and a configuration of version 0.1.0 can still be used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.harness import daemon, predictions
from tests.support.servers import MAX_WAIT_S, free_port, mosquitto, mosquitto_sub, sandbox_process

RECORDED = Path(__file__).resolve().parents[1] / "data" / "state-0.1.0"
FACTS: dict[str, Any] = json.loads((RECORDED / "recording.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the recording: state folder and configuration."""
    return shutil.copytree(RECORDED, tmp_path / "recorded")


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "daemon", *words, "--config", str(folder / "config.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def pointed(folder: Path, tmp_path: Path) -> Iterator[tuple[Path, int, int]]:
    """The recording, its configuration pointed at running servers; broker and page ports."""
    origin, rows = str(FACTS["origin_ms"]), str(FACTS["slice_rows"])
    options = "--symbols", "2", "--origin-ms", origin, "--slice-rows", rows
    with sandbox_process(*options) as exchange, mosquitto(tmp_path) as broker:
        path, http_port = folder / "config.yaml", free_port()
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        config["exchange"]["endpoint"] = {"rest": exchange.rest_url, "ws": exchange.ws_url}
        config["mqtt"]["port"] = broker.port
        config["http"]["port"] = http_port
        # The recording gets older than the 90 days that it was configured to keep.
        config["history"]["keep_days"] = 36_500
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        yield folder, broker.port, http_port


def settings_in(section: dict[str, Any]) -> int:
    return sum(settings_in(v) if isinstance(v, dict) else 1 for v in section.values())


def test_the_configuration_holds_every_setting_of_its_version(folder: Path) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert settings_in(config) == 71


def test_the_configuration_is_accepted(folder: Path) -> None:
    assert "2 symbols of binance at 1s" in run(folder, "check-config")


def test_the_recorded_forecasts_are_computed_again_from_history(folder: Path) -> None:
    output = run(folder, "replay", "--from", "2026-11-30T18:45Z", "--to", "2026-11-30T18:48Z")
    assert "92 forecasts computed again" in output


def test_the_daemon_serves_the_recorded_model_and_keeps_its_scores(
    pointed: tuple[Path, int, int],
) -> None:
    folder, broker_port, http_port = pointed
    champion = (folder / "state" / "registry" / "champion").read_text(encoding="utf-8").strip()
    with (
        mosquitto_sub(broker_port, "candlecast/#") as subscriber,
        daemon(folder / "config.yaml", http_port) as process,
    ):
        process.wait_ready()
        forecasts: list[dict[str, Any]] = []
        deadline = time.monotonic() + MAX_WAIT_S
        while {f["symbol"] for f in forecasts} != set(FACTS["last"]):
            assert time.monotonic() < deadline, process.log
            forecasts += predictions(subscriber.received())
            time.sleep(0.05)
        assert process.stop() == 0, process.log
    for forecast in forecasts:
        last = FACTS["last"][forecast["symbol"]]
        assert forecast["model"]["version"] == champion
        assert forecast["seq"] > last["seq"]
        # The recorded outcomes still count, and the interval is restored.
        assert forecast["skill"]["n"] >= last["skill"]["n"]
        assert forecast["interval"] is not None
