"""Plant secrets in every setting that takes one, and search all output for them."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import (
    Daemon,
    daemon,
    playback_of,
    promote_drawn,
    sections,
    write_config,
)
from tests.support.certificates import Authority
from tests.support.servers import (
    HOST,
    MAX_WAIT_S,
    Mosquitto,
    free_port,
    mosquitto,
    password_file,
    program,
    sandbox_process,
)

BROKER_SECRET = "planted-for-the-broker"
PAGE_SECRET = "planted-for-the-pages"
SECRETS = (BROKER_SECRET, PAGE_SECRET)


def shapes(key: Path) -> list[str]:
    """A secret as it is, and as it travels."""
    coded = [base64.b64encode(f"me:{PAGE_SECRET}".encode()).decode()]
    return [*SECRETS, *coded, *key.read_text().splitlines()[1:-1]]


class Deployment:
    """A daemon that needs a secret for everything."""

    def __init__(self, folder: Path, authority: Authority, broker: Mosquitto) -> None:
        self.folder = folder
        self.authority = authority
        self.broker = broker
        self.key = folder / "pages.key"
        self.process: Daemon | None = None

    def get(self, url: str, login: str | None = f"me:{PAGE_SECRET}") -> tuple[int, str]:
        headers = {}
        if login is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        trusting = ssl.create_default_context(cafile=str(self.authority.ca))
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - its own server
        try:
            with urllib.request.urlopen(request, timeout=MAX_WAIT_S, context=trusting) as answer:  # noqa: S310
                # The stream of events has no end.
                return int(answer.status), answer.read1(1 << 20).decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("secrets")
    authority = Authority(folder)
    broker_pair, pages = authority.issue("broker"), authority.issue("pages")
    passwords = password_file(folder, "trader", BROKER_SECRET)
    lines = (
        *(f"cafile {authority.ca}", f"certfile {broker_pair.certificate}"),
        *(f"keyfile {broker_pair.key}", f"password_file {passwords}", "allow_anonymous false"),
    )
    (folder / "page-password").write_text(PAGE_SECRET)
    with (
        mosquitto(folder, *lines) as broker,
        sandbox_process("--symbols", "2", "--slice-rows", "3600", "--history", "900") as exchange,
    ):
        promote_drawn(folder, playback_of(exchange))
        http_port = free_port()
        config = write_config(
            folder,
            sections(
                exchange,
                broker.port,
                http_port,
                mqtt={"username": "trader", "tls": {"ca_file": authority.ca.name}},
                http={
                    "host": HOST,
                    "username": "me",
                    "password_file": "page-password",
                    "tls": {
                        "certificate_file": pages.certificate.name,
                        "key_file": pages.key.name,
                    },
                },
                logging={"level": "DEBUG", "format": "json"},
            ),
        )
        found = Deployment(folder, authority, broker)
        with daemon(config, http_port, CANDLECAST__MQTT__PASSWORD=BROKER_SECRET) as process:
            found.process = process
            process.until(lambda: found.get(f"https://{HOST}:{http_port}/readyz")[0] == 200)
            process.until(lambda: any(one["message"] == "forecast" for one in records(process)))
            yield found


def records(process: Daemon) -> list[dict[str, Any]]:
    """What the daemon has logged; its last line may not be whole yet."""
    lines = process.log.splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def running(deployment: Deployment) -> Daemon:
    assert deployment.process is not None
    return deployment.process


def clean(text: str, deployment: Deployment) -> None:
    assert text
    for secret in shapes(deployment.key):
        assert secret not in text


def test_pages_and_metrics(deployment: Deployment) -> None:
    url = f"https://{HOST}:{running(deployment).http_port}"
    for page in ("", "metrics", "healthz", "readyz", "events", "nowhere"):
        for login, codes in (
            (f"me:{PAGE_SECRET}", {200, 404}),
            (None, {401}),
            ("me:wrong", {401}),
        ):
            status, text = deployment.get(f"{url}/{page}", login)
            assert status in codes, (page, status)
            clean(text, deployment)


def test_messages(deployment: Deployment) -> None:
    done = subprocess.run(
        [program("mosquitto_sub"), "-h", HOST, "-p", str(deployment.broker.port), "-V", "5",
         "--cafile", str(deployment.authority.ca), "-u", "trader", "-P", BROKER_SECRET,
         "-t", "#", "-C", "6", "-W", str(int(MAX_WAIT_S)), "-F", "%j"],
        capture_output=True, text=True, check=True, timeout=MAX_WAIT_S,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 6
    clean(done.stdout, deployment)


def test_process_list(deployment: Deployment) -> None:
    clean(Path(f"/proc/{running(deployment).process.pid}/cmdline").read_text(), deployment)


def test_what_is_left_on_disk(deployment: Deployment) -> None:
    written = [path for path in (deployment.folder / "state").rglob("*") if path.is_file()]
    assert any(path.name == "history.sqlite" for path in written)
    for path in written:
        clean(path.read_bytes().decode("latin-1"), deployment) if path.stat().st_size else None


def test_the_log_at_debug_level(deployment: Deployment) -> None:
    logged = records(running(deployment))
    assert {"DEBUG", "INFO"} <= {record["level"] for record in logged}
    assert any(record["message"] == "forecast" and record["seq"] for record in logged)
    clean(running(deployment).log, deployment)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"CANDLECAST__MQTT__PORT": "x"}, 2),
        ({"CANDLECAST__HTTP__PASSWORD": PAGE_SECRET}, 2),
        ({"CANDLECAST__MQTT__PASSWORD_FILE": "page-password"}, 2),
        ({"CANDLECAST__MQTT__PASSWORT": BROKER_SECRET}, 2),
        ({"CANDLECAST__HTTP__TLS__KEY_FILE": "page-password"}, 2),
    ],
)
def test_findings_about_the_configuration(
    deployment: Deployment, changes: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDLECAST__MQTT__PASSWORD", BROKER_SECRET)
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "check-config",
         "--config", str(deployment.folder / "config.yaml")],
        capture_output=True, text=True, check=False, timeout=MAX_WAIT_S,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    clean(done.stdout + done.stderr, deployment)
    assert "Traceback" not in done.stderr
