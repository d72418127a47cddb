"""Test the installed units under a real systemd."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.features.definitions import Indicators
from tests.integration.harness import playback_of, sections, write_config
from tests.integration.systemd_machine import REPOSITORY, Machine, installed, machine, until
from tests.support.servers import (
    MAX_WAIT_S,
    Mosquitto,
    free_port,
    mosquitto,
    mosquitto_sub,
    password_file,
    sandbox_process,
)
from tests.support.tiny_models import promote

UNITS = REPOSITORY / "systemd"
KINDS = {".service", ".timer", ".path"}
SERVICE = "candlecast.service"
STATE = Path("/var/lib/candlecast")
WATCHDOG_S = 3.0
SECRET = "planted-into-a-credential"
CREDENTIAL = "candlecast_mqtt-password"
SECOND = "second"
ASKED = "asked.service"
"""Runs the installed command as root, where the environment of this test can be read."""
MONOTONIC = "ExecMainStartTimestampMonotonic"
HANGS = """\
import gc
import signal
import time
from concurrent.futures import ThreadPoolExecutor


def hang_loop(*_):
    time.sleep(600)


def hang_thread(*_):
    gc.unfreeze()
    for pool in gc.get_objects():
        if isinstance(pool, ThreadPoolExecutor) and pool._thread_name_prefix == "engine":
            pool.submit(time.sleep, 600)


signal.signal(signal.SIGUSR1, hang_loop)
signal.signal(signal.SIGUSR2, hang_thread)
"""
"""Two ways to hang, which the daemon itself has no use for: read by Python as it starts."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with candlecast installed under ``installed``."""
    folder = tmp_path_factory.mktemp("machine")
    folder.chmod(0o755)
    installed(folder)
    return folder


@pytest.fixture(scope="module")
def inside(work: Path) -> Iterator[Machine]:
    """A booted machine on which candlecast is installed but not configured."""
    hooks = work / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HANGS)
    libraries = sysconfig.get_path("purelib")
    for name in (SERVICE, "candlecast@.service", "candlecast-retrain.service", ASKED):
        drop_in = work / "units" / f"{name}.d" / "test.conf"
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text(
            "[Service]\nProtectHome=tmpfs\n"
            f"Environment=PYTHONPATH={libraries}:{hooks}\n"
            f"BindReadOnlyPaths={sys.prefix} {sys.base_prefix} {hooks}\n"
            + (f"WatchdogSec={WATCHDOG_S}\n" if name in {SERVICE, "candlecast@.service"} else "")
        )
    (work / "units" / ASKED).write_text(
        f"[Service]\nType=oneshot\nExecStart={work}/installed/usr/local/bin/candlecast $WORDS\n"
        f"EnvironmentFile={work}/words\n"
    )
    with machine(work, [Path(sys.prefix), Path(sys.base_prefix)]) as booted:
        yield booted


@pytest.fixture(scope="module")
def broker(inside: Machine, work: Path) -> Iterator[Mosquitto]:
    folder = work / "broker"
    folder.mkdir()
    passwords = password_file(folder, "trader", SECRET)
    with inside.network(), mosquitto(folder, f"password_file {passwords}") as server:
        yield server


@pytest.fixture(scope="module")
def configured(inside: Machine, broker: Mosquitto, work: Path) -> Iterator[Machine]:
    """Exchange, broker, model, configuration and secret are there; nothing is started."""
    with (
        inside.network(),
        sandbox_process("--symbols", "2", "--slice-rows", "3600", "--history", "1800") as exchange,
    ):
        playback = playback_of(exchange)
        past = (playback.origin_ms, playback.origin_ms + 900_000)
        for state in ("candlecast", f"candlecast/{SECOND}"):
            for promoted_last in (False, True):
                promote(
                    work / "lib" / state / "registry",
                    {symbol: playback.history(symbol, *past)[1] for symbol in playback.symbols},
                    timeframe=exchange.timeframe,
                    indicators=Indicators(),
                    lookback=8,
                    trained_to_ms=playback.origin_ms + promoted_last,
                )
        model = {"epochs": 1, "batch_size": 256, "lookback_periods": 8, "lstm_units": [4, 3]}
        for instance, name in ((SECOND, SECOND), ("tester", "config")):
            write_config(
                work / "etc" / "candlecast",
                sections(
                    exchange,
                    broker.port,
                    free_port(),
                    mqtt={"instance": instance, "username": "trader", "password_file": CREDENTIAL},
                    model=model,
                    registry={"gate_days": 300 / 86_400},
                    retrain={"days": 1_500 / 86_400},
                ),
            ).rename(work / "etc" / "candlecast" / f"{name}.yaml")
        secret = work / "etc" / "candlecast" / "credentials" / "mqtt-password"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        yield inside


@pytest.fixture
def started(configured: Machine) -> Machine:
    done = configured.systemctl("start", SERVICE, check=False)
    assert done.returncode == 0, configured.text(SERVICE)
    return configured


def test_it_is_ready_once_it_forecasts(started: Machine, broker: Mosquitto) -> None:
    with started.network(), mosquitto_sub(broker.port, "candlecast/v1/+/+/+/prediction") as live:
        first = json.loads(live.next()["payload"])
    assert first["symbol"] in {"S00/USDT", "S01/USDT"}
    until(
        lambda: status(started).startswith("2 symbols; broker connected; model "),
        lambda: status(started),
    )

    (entry,) = [e for e in started.journal(SERVICE) if "ready: 2 symbols" in e["MESSAGE"]]
    assert (entry["PRIORITY"], entry["MESSAGE"]) == ("6", "candlecast.app: ready: 2 symbols")


def status(machine: Machine) -> str:
    return machine.show(SERVICE, "StatusText")["StatusText"]


def test_it_may_write_its_state_and_nothing_else(started: Machine) -> None:
    pid = started.pid_of(SERVICE)
    (owner,) = {line.split()[1] for line in started.proc(pid, "status") if "Uid:" in line}
    assert owner != "0"

    def may_write(folder: str) -> bool:
        command = ("touch", f"{folder}/probe")
        return as_service(started, pid, owner, *command).returncode == 0

    assert may_write(str(STATE))
    for folder in ("/", "/etc", "/etc/candlecast", "/usr", "/opt/candlecast", "/var", "/var/lib"):
        assert not may_write(folder), folder
    for folder in ("/etc/candlecast/credentials", "/var/lib/private", "/var/log/journal"):
        assert as_service(started, pid, owner, "ls", folder).returncode != 0, folder
    for line in started.proc(pid, "status"):
        if line.startswith("Cap"):
            assert int(line.split()[1], 16) == 0, line
        if line.startswith("NoNewPrivs"):
            assert line.split()[1] == "1"


def as_service(
    machine: Machine, pid: str, owner: str, *command: str
) -> subprocess.CompletedProcess[str]:
    """Run a command where the service runs, as its user."""
    where = ("nsenter", "--target", pid, "--mount", "--setuid", owner, "--setgid", owner)
    return machine.run(*where, *command, check=False)


def test_a_reload_checks_the_champion_and_reports_completion(started: Machine) -> None:
    before = started.pid_of(SERVICE)
    started.systemctl("reload", SERVICE)
    assert started.show(SERVICE, "ActiveState", "MainPID") == {
        "ActiveState": "active",
        "MainPID": before,
    }
    assert f"Reloaded {SERVICE}" in started.text(SERVICE)


def test_a_champion_that_changes_is_swapped_in(started: Machine) -> None:
    served = status(started).rpartition(" ")[2]
    pid = started.pid_of(SERVICE)
    output = asked(started, "models rollback")
    (champion,) = re.findall("champion: (.+)", output)
    assert champion != served, output
    until(lambda: status(started).endswith(champion), lambda: f"{status(started)} {champion}")
    assert started.pid_of(SERVICE) == pid


def asked(machine: Machine, words: str, status: str = "0") -> str:
    """The output of the installed command, run as root."""
    (machine.work / "words").write_text(f"WORDS={words}\n")
    before = len(machine.journal(ASKED))
    machine.systemctl("start", ASKED, check=False)
    assert machine.show(ASKED, "ExecMainStatus") == {"ExecMainStatus": status}, machine.text(ASKED)
    output = machine.journal(ASKED)[before:]
    return "\n".join(entry["MESSAGE"] for entry in output if entry["_TRANSPORT"] == "stdout")


def test_files_created_by_root_can_be_changed_by_the_service(started: Machine, work: Path) -> None:
    state = work / "lib" / "candlecast"
    assert "state in /var/lib/candlecast" in asked(started, "check-config")
    output = asked(started, "doctor")
    # Without a bus, only root may ask this systemd.
    assert "✓ broker " in output
    assert f"– systemd   cannot query {SERVICE} (" in output
    asked(started, f"@{SECOND} models rollback")
    assert {path.stat().st_uid for path in state.rglob("*")} == {state.stat().st_uid} != {0}
    assert asked(started, "models promote nonsense", status="1").startswith("candlecast: ")
    # What it was given to log in with is gone with it.
    assert list((work / "etc").rglob(CREDENTIAL)) == []
    assert started.run("ls", "/run/candlecast", check=False).stdout == ""


def test_an_instance_runs_beside_the_main_one(started: Machine, broker: Mosquitto) -> None:
    before = started.pid_of(SERVICE)
    unit = f"candlecast@{SECOND}.service"
    done = started.systemctl("start", unit, check=False)
    assert done.returncode == 0, started.text(unit)
    with started.network(), mosquitto_sub(broker.port, f"candlecast/v1/status/{SECOND}") as live:
        while json.loads(live.next()["payload"])["state"] != "online":
            pass
    done = doctor(started, SECOND)
    for line in (
        f"✗ systemd   {unit} is active, but does not start with the machine",
        f"✓ state     {STATE}/{SECOND} is writable",
        f"✗ systemd   candlecast-retrain@{SECOND}.timer is inactive",
    ):
        assert line in done.stdout.splitlines(), done.stdout + done.stderr
    started.systemctl("stop", unit)
    assert started.pid_of(SERVICE) == before


def test_the_timer_runs_the_nightly_job(started: Machine, work: Path) -> None:
    timer, job = "candlecast-retrain.timer", "candlecast-retrain.service"
    drop_in = work / "units" / f"{timer}.d" / "now.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Timer]\nOnCalendar=\nOnActiveSec=0\nRandomizedDelaySec=0\n")
    started.systemctl("daemon-reload")
    before = started.pid_of(SERVICE)
    started.systemctl("start", timer)

    def ended() -> bool:
        return started.show(job, "ExecMainExitTimestamp")["ExecMainExitTimestamp"] != ""

    until(ended, lambda: started.text(job), 4 * MAX_WAIT_S)
    started.systemctl("stop", timer)
    shown = started.show(job, "Result", "ExecMainStatus", "Nice")
    assert shown == {"Result": "success", "ExecMainStatus": "0", "Nice": "19"}, started.text(job)
    result = json.loads((work / "lib" / "candlecast" / "retrain.json").read_text())
    assert result["error"] is None
    assert result["version"]
    assert started.pid_of(SERVICE) == before


def test_the_secret_is_only_in_its_credential(started: Machine) -> None:
    pid = started.pid_of(SERVICE)
    assert SECRET not in started.text(SERVICE)
    for name in ("cmdline", "environ"):
        assert SECRET not in "".join(started.proc(pid, name))
    shown = started.systemctl("show", SERVICE).stdout + started.systemctl("status", SERVICE).stdout
    assert SECRET not in shown


@pytest.mark.parametrize("number", ["SIGUSR1", "SIGUSR2"], ids=["loop", "inference-thread"])
def test_a_hanging_service_is_restarted_in_time(started: Machine, number: str) -> None:
    before, earlier = restarts(started), started.text(SERVICE)
    hung_s = time.monotonic()
    started.signal(SERVICE, number)

    def again() -> bool:
        state = started.show(SERVICE, "ActiveState")["ActiveState"]
        return restarts(started) > before and state == "active"

    until(again, lambda: started.text(SERVICE))
    started_s = int(started.show(SERVICE, MONOTONIC)[MONOTONIC]) / 1e6
    assert started_s - hung_s < WATCHDOG_S + 2.0
    assert restarts(started) == before + 1
    output = started.text(SERVICE).removeprefix(earlier)
    assert f"{SERVICE}: Watchdog timeout (limit 3s)!" in output
    # What every thread was doing goes to the journal.
    assert "Fatal Python error: Aborted" in output
    assert "in hang_loop" in output if number == "SIGUSR1" else "in _worker" in output


def restarts(machine: Machine) -> int:
    return int(machine.show(SERVICE, "NRestarts")["NRestarts"])


def test_doctor_sees_the_units(started: Machine) -> None:
    done = doctor(started)
    output = done.stdout.splitlines()
    for line in (
        f"✗ systemd   {SERVICE} is active, but does not start with the machine",
        "✓ state     /var/lib/candlecast is writable",
        "✗ systemd   candlecast-retrain.timer is inactive",
    ):
        assert line in output, done.stdout + done.stderr
    for topic in ("exchange", "clock", "stream", "broker", "model", "http"):
        assert any(line.startswith(f"✓ {topic} ") for line in output), done.stdout + done.stderr
    assert done.returncode == 1
    assert "systemctl enable --now candlecast-retrain.timer" in done.stdout


def doctor(machine: Machine, name: str = "") -> subprocess.CompletedProcess[str]:
    return machine.run(
        *("env", f"STATE_DIRECTORY={STATE / name}", f"PYTHONPATH={sysconfig.get_path('purelib')}"),
        "CANDLECAST__MQTT__PASSWORD_FILE=/etc/candlecast/credentials/mqtt-password",
        *("/opt/candlecast/venv/bin/candlecast", "doctor"),
        f"--config=/etc/candlecast/{name or 'config'}.yaml",
        check=False,
    )


def test_it_stops_cleanly(started: Machine, broker: Mosquitto) -> None:
    with started.network(), mosquitto_sub(broker.port, "candlecast/v1/status/tester") as live:
        started.systemctl("stop", SERVICE)
        states = [json.loads(live.next()["payload"])["state"]]
        while states[-1] != "offline":
            states.append(json.loads(live.next()["payload"])["state"])
    assert states[-2:] == ["stopping", "offline"]
    shown = started.show(SERVICE, "ActiveState", "Result", "ExecMainStatus", "NRestarts")
    assert shown["ActiveState"] == "inactive", started.text(SERVICE)[-6000:]
    assert shown["Result"] == "success"
    assert shown["ExecMainStatus"] == "0"


def test_a_wrong_configuration_is_not_tried_again(configured: Machine, work: Path) -> None:
    (work / "etc" / "candlecast" / "broken.yaml").write_text("mqtt: {prot: 1}\n")
    done = configured.systemctl("start", "candlecast@broken.service", check=False)
    assert done.returncode != 0
    shown = configured.show("candlecast@broken.service", "NRestarts", "ExecMainStatus", "SubState")
    assert shown == {"NRestarts": "0", "ExecMainStatus": "2", "SubState": "failed"}
    entries = configured.journal("candlecast@broken.service")
    (entry,) = [e for e in entries if e["MESSAGE"].startswith("candlecast: ")]
    assert "mqtt.prot: unknown key; did you mean port?" in entry["MESSAGE"]
    assert entry["PRIORITY"] == "3"


def test_the_installed_units_are_in_order(inside: Machine, work: Path) -> None:
    folder = work / "installed/usr/local/lib/systemd/system"
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in UNITS.iterdir() if path.suffix in KINDS}
    done = inside.run("systemd-analyze", "verify", *(str(folder / name) for name in sorted(names)))
    assert done.stderr == ""


def test_what_is_installed_can_be_removed(work: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(work / "installed", root, symlinks=True)
    script = root / "opt/candlecast/venv/bin/candlecast"
    assert script.read_text().startswith("#!/opt/candlecast/venv/bin/python")
    assert (root / "etc/candlecast/credentials").stat().st_mode & 0o777 == 0o700
    command = (root / "usr/local/bin/candlecast").read_text()
    assert "\nprogram=/opt/candlecast/venv/bin/candlecast\n" in command
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / f"candlecast@{SECOND}.service").symlink_to("/nowhere/candlecast@.service")
    subprocess.run(
        ["make", "uninstall", f"DESTDIR={root}"],
        cwd=REPOSITORY, check=True, timeout=MAX_WAIT_S, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    left = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert left == {"etc/candlecast/config.yaml"}
