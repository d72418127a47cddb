"""Run a real Prometheus beside a real daemon: every panel and alert has data."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboard import dashboard
from monitoring.panels import panels
from tests.integration.harness import daemon, playback_of, promote_drawn, sections, write_config
from tests.monitoring.test_rules import RULES, alerts
from tests.support.servers import HOST, accepts, free_port, mosquitto, program, sandbox_process

PATIENCE_S = 40.0


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str, **arguments: str) -> Any:
        query = urllib.parse.urlencode(arguments)
        url = f"http://{HOST}:{self._port}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def ask(self, expression: str) -> list[Any]:
        """What an expression gives now."""
        found: list[Any] = self.get("query", query=expression)["result"]
        return found


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "candlecast", "static_configs": [{"targets": [f"{HOST}:{target}"]}]}
        ],
    }
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    log = (folder / "prometheus.log").open("wb")
    with log, subprocess.Popen(
        [program("prometheus"), f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}",
         f"--web.listen-address={HOST}:{port}", "--enable-feature=exemplar-storage"],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
    ) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not accepts(port):
                assert time.monotonic() < deadline, (folder / "prometheus.log").read_text()
                time.sleep(0.05)
            yield Prometheus(port)
        finally:
            process.terminate()
            process.wait(20)


def as_number(expression: str) -> str:
    """An alert's condition as 0 or 1: a comparison that does not hold gives no data otherwise."""
    return re.sub(r"(==|!=|>=|<=|>|<)(?!~)", r"\1 bool", expression)


def as_asked(expression: str) -> str:
    """A panel's expression with Grafana's variables filled in."""
    return (
        expression.replace("$__rate_interval", "30s")
        .replace("$__range", "1m")
        .replace("$instance", ".*")
    )


def wait_for(server: Prometheus, expressions: dict[str, str]) -> set[str]:
    """The names of the expressions that give no data even after a while."""
    missing, deadline = set(expressions), time.monotonic() + PATIENCE_S
    while missing and time.monotonic() < deadline:
        missing = {name for name in missing if not server.ask(expressions[name])}
        time.sleep(0.5)
    return missing


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("watched")
    http_port = free_port()
    with mosquitto(folder) as broker, sandbox_process("--symbols", "3") as exchange:
        config = write_config(
            folder,
            sections(exchange, broker.port, http_port, accuracy={"window": 20, "min_n": 3}),
        )
        promote_drawn(folder, playback_of(exchange))
        with daemon(config, http_port) as running, prometheus(folder, http_port) as server:
            running.wait_ready()
            yield server


def test_every_panel_shows_something(watched: Prometheus) -> None:
    asked = {
        f"{panel.title}: {query.legend}": as_asked(query.expression)
        for panel in panels()
        for query in panel.queries
    }
    assert len(asked) > 40
    assert wait_for(watched, asked) == set()


def test_without_a_live_trial_and_a_new_model_the_panels_say_none(watched: Prometheus) -> None:
    shown = {panel.title: panel for panel in panels()}
    trial, new = shown["Live trial"], shown["New models"]
    assert wait_for(watched, {"new": as_asked(new.queries[0].expression)}) == set()
    (line,) = watched.ask(as_asked(trial.queries[0].expression))
    assert trial.queries[0].legend == "{{role}}"
    assert line["metric"]["role"] == "none"
    (count,) = watched.ask(as_asked(new.queries[0].expression))
    assert dict(new.texts)[float(count["value"][1])] == "none"


def test_the_annotation_marks_the_model_that_is_new(watched: Prometheus) -> None:
    (annotation,) = dashboard()["annotations"]["list"]
    expression = f"last_over_time(({annotation['expr']})[1h:1s])"
    assert wait_for(watched, {"annotation": expression}) == set()
    (mark,) = watched.ask(expression)
    (info,) = watched.ask("candlecast_model_info")
    assert annotation["titleFormat"] == "{{version}}"
    assert mark["metric"]["version"] == info["metric"]["version"]


def test_every_alert_has_data_to_judge(watched: Prometheus) -> None:
    asked = {name: as_number(rule["expr"]) for name, rule in alerts().items()}
    assert wait_for(watched, asked) == set()


def test_every_rule_is_evaluated_without_error(watched: Prometheus) -> None:
    rules = [rule for group in watched.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > len(alerts())
    assert [rule for rule in rules if rule.get("lastError")] == []


def test_every_expression_names_series_that_the_daemon_declares(watched: Prometheus) -> None:
    exposed = set(watched.get("label/__name__/values"))
    texts = [query.expression for panel in panels() for query in panel.queries]
    texts += [rule["expr"] for rule in alerts().values()]
    named = {name for text in texts for name in re.findall(r"\bcandlecast[_:][\w:]+", text)}
    assert len(named) > 30
    assert named <= exposed
