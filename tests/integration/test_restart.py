"""Check that scores of forecasts survive restarts, clean and killed."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.features.definitions import Indicators
from tests.integration.harness import (
    Daemon,
    daemon,
    playback_of,
    predictions,
    promote_drawn,
    sample,
    sections,
    until_offline,
    write_config,
)
from tests.support.servers import (
    MAX_WAIT_S,
    Mosquitto,
    Subscriber,
    free_port,
    mosquitto,
    mosquitto_sub,
    sandbox_process,
)

HISTORY = 900
MIN_N = 5


class Deployment:
    """A running exchange and broker, and a daemon that is restarted."""

    def __init__(
        self, config: Path, http_port: int, broker: Mosquitto, subscriber: Subscriber
    ) -> None:
        self.config = config
        self.http_port = http_port
        self.broker = broker
        self.subscriber = subscriber
        self.messages: list[dict[str, Any]] = []

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        with daemon(self.config, self.http_port) as process:
            process.wait_ready()
            yield process

    def forecasts(self) -> list[dict[str, Any]]:
        """Every forecast received so far."""
        self.messages += self.subscriber.received()
        return predictions(self.messages)

    def until_forecasts(self, count: int) -> None:
        deadline = time.monotonic() + MAX_WAIT_S
        enough = len(self.forecasts()) + count
        while len(self.forecasts()) < enough:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def until_offline(self, daemons: int = 1) -> list[dict[str, Any]]:
        """Every forecast received, up to the last message of the ended daemon."""
        for _ in range(daemons):
            self.messages += until_offline(self.subscriber)
        return self.forecasts()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        path = self.config.parent / "state" / "history.sqlite"
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(sql).fetchall()


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with (
        sandbox_process("--symbols", "2", "--history", str(HISTORY)) as exchange,
        mosquitto(tmp_path) as broker,
        mosquitto_sub(broker.port, "candlecast/#") as subscriber,
    ):
        playback = playback_of(exchange)
        promote_drawn(tmp_path, playback)
        port = free_port()
        chosen = sections(exchange, broker.port, port, accuracy={"min_n": MIN_N})
        yield Deployment(write_config(tmp_path, chosen), port, broker, subscriber)


def assert_forecasts_unchanged(forecasts: list[dict[str, Any]]) -> None:
    """Identities may be received twice, since they are retained, but only unchanged."""
    worded: dict[tuple[str, int], dict[str, Any]] = {}
    for forecast in forecasts:
        key = forecast["symbol"], forecast["target_close_ms"]
        assert worded.setdefault(key, forecast) == forecast


def test_earlier_forecasts_are_scored_after_a_restart_and_figures_continue(
    deployment: Deployment,
) -> None:
    with deployment.running() as first:
        deployment.until_forecasts(2 * (MIN_N + 3))
        assert first.stop() == 0, first.log
    before = deployment.until_offline()
    last = max(before, key=lambda f: int(f["target_close_ms"]))
    assert last["skill"]["n"] >= MIN_N
    # The bundle knows no residuals, so the first forecasts have no interval.
    of_symbol = [f for f in before if f["symbol"] == last["symbol"]]
    assert of_symbol[0]["interval"] is of_symbol[0]["probabilities"] is None
    assert last["interval"]["lower"] <= last["predicted_close"] <= last["interval"]["upper"]
    # Everything that was published is written down, the newest included.
    stored = deployment.query("SELECT count(*) FROM forecast")[0][0]
    assert stored == len({(f["symbol"], f["seq"]) for f in before})

    with deployment.running() as second:
        deployment.until_forecasts(4)
        metrics = second.get("/metrics")[1]
        assert second.stop() == 0, second.log
    after = deployment.until_offline()[len(before) :]
    fresh = next(f for f in after if f["symbol"] == last["symbol"] and f["seq"] > last["seq"])
    # Its candle scored the one before the last in the first process, and the last one, which was
    # waiting when that process ended, was scored in the second.
    assert fresh["skill"]["n"] == last["skill"]["n"] + 2
    # The state of the intervals is restored.
    assert fresh["interval"] is not None
    assert sum(fresh["probabilities"][k] for k in ("short", "neutral", "long")) == pytest.approx(1)
    assert sample(metrics, "candlecast_mae_ratio") > 0.0
    assert_forecasts_unchanged(before + after)


def test_a_killed_daemon_starts_again_and_continues(deployment: Deployment) -> None:
    with deployment.running() as first:
        deployment.until_forecasts(2 * (MIN_N + 3))
        first.kill()
    deadline = time.monotonic() + MAX_WAIT_S
    while not any(state == "offline" for state in states(deployment)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = deployment.forecasts()
    with deployment.running() as second:
        deployment.until_forecasts(4)
        assert second.stop() == 0, second.log
    after = deployment.until_offline()[len(before) :]
    assert all(f["skill"] is not None for f in after)
    assert after[-1]["skill"]["n"] >= MIN_N
    assert states(deployment)[-2:] == ["stopping", "offline"]
    assert "Traceback" not in second.log
    assert_forecasts_unchanged(before + after)
    assert deployment.query("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_resumes_from_history_and_requests_only_the_rest(
    deployment: Deployment, tmp_path: Path, how: str
) -> None:
    window = Indicators().warmup + 60
    with deployment.running() as first:
        deployment.until_forecasts(4)
        assert fetched(first) >= 2 * window
        getattr(first, how)()
    before = deployment.query("SELECT count(*) FROM candle")[0][0]
    fresh_port = free_port()
    fresh = tmp_path / "fresh"
    shutil.copytree(tmp_path / "state" / "registry", fresh / "state" / "registry")
    chosen = yaml.safe_load(deployment.config.read_text())
    chosen["http"]["port"], chosen["mqtt"]["instance"] = fresh_port, "fresh"
    fresh_config = write_config(fresh, chosen)
    with daemon(fresh_config, fresh_port) as other, deployment.running() as second:
        other.wait_ready()
        deployment.until_forecasts(16)
        assert fetched(other) >= 2 * window
        # What closed in between and some overlap, again and again while a window was not whole.
        assert fetched(second) < window
        assert "2 of 2 symbols resume from history" in second.log
        assert "0 of 2 symbols resume from history" in other.log
        assert second.stop() == 0
        assert other.stop() == 0
    deployment.until_offline(daemons=2)
    assert deployment.query("SELECT count(*) FROM candle")[0][0] > before
    by_instance: dict[str, dict[tuple[str, int], float]] = {"tester": {}, "fresh": {}}
    for forecast in deployment.forecasts():
        key = forecast["symbol"], forecast["seq"]
        by_instance[forecast["instance"]][key] = forecast["predicted_normalized"]
    both = set(by_instance["tester"]) & set(by_instance["fresh"])
    assert len(both) >= 4
    for key in both:
        assert by_instance["tester"][key] == pytest.approx(by_instance["fresh"][key], abs=1e-5)


def fetched(process: Daemon) -> float:
    """Candles that came by REST."""
    return sample(process.get("/metrics")[1], "candlecast_feed_backfill_candles_total")


def states(deployment: Deployment) -> list[str]:
    deployment.forecasts()
    statuses = [m for m in deployment.messages if "/status/" in m["topic"]]
    return [str(json.loads(m["payload"])["state"]) for m in statuses]
