"""Check how much the unit files allow, and when the timer starts."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from model.shared_state.retrain_request import REQUEST
from tests.support.servers import program

UNITS = Path(__file__).resolve().parents[2] / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
SHARED = "# The rest is the same in every unit of candlecast.\n"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("systemd-analyze"), *arguments],
        capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": "/usr/bin:/bin", "TZ": "Europe/Berlin", "LC_ALL": "C"},
    )  # fmt: skip


def exposure(unit: Path, threshold: int) -> int:
    """The exit code of a judgement: 1 above the threshold, ten times the score."""
    done = analyze("security", "--offline=true", f"--threshold={threshold}", str(unit))
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.stderr == ""
    return done.returncode


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_has_little_exposure(name: str) -> None:
    assert exposure(UNITS / name, 11) == 0


def test_a_gpu_opens_its_devices_and_no_more(tmp_path: Path) -> None:
    unit = tmp_path / "candlecast.service"
    service = (UNITS / unit.name).read_text().replace("[Install]\nWantedBy=multi-user.target\n", "")
    unit.write_text(service + (UNITS / "gpu.conf").read_text())
    assert exposure(unit, 13) == 0
    assert exposure(unit, 11) == 1


def test_the_sandbox_is_the_same_for_all() -> None:
    sandboxes = {
        (UNITS / name).read_text().partition(SHARED)[2].partition("\n[Install]")[0].strip()
        for name in SERVICES
    }
    assert len({re.sub(r"(?m)^#.*\n", "", sandbox) for sandbox in sandboxes}) == 1
    assert "" not in sandboxes


@pytest.mark.parametrize("path", sorted(UNITS.glob("*@.*")), ids=lambda path: path.name)
def test_an_instance_differs_by_its_name_alone(path: Path) -> None:
    instance = re.sub(r"(?m)^#.*\n|, instance %i$", "", path.read_text())
    instance = instance.replace("/etc/candlecast/%i.yaml", "/etc/candlecast/config.yaml")
    main = path.with_name(path.name.replace("@", "")).read_text()
    assert instance.replace("candlecast/%i", "candlecast") == re.sub(r"(?m)^#.*\n", "", main)


def test_the_timer_fires_once_a_night_across_clock_changes() -> None:
    timer = (UNITS / "candlecast-retrain.timer").read_text()
    (calendar,) = re.findall(r"^OnCalendar=(.+)$", timer, re.MULTILINE)
    for before in ("2026-03-27 12:00:00 UTC", "2026-10-23 12:00:00 UTC"):
        done = analyze("calendar", "--iterations=4", f"--base-time={before}", calendar)
        rings = re.findall(r"\(in UTC\): \w+ (\S+) (\S+) UTC", done.stdout)
        assert [time for _, time in rings] == ["02:00:00"] * 4
        assert len({day for day, _ in rings}) == 4
    assert re.search(r"^Persistent=yes$", timer, re.MULTILINE)
    assert re.search(r"^RandomizedDelaySec=", timer, re.MULTILINE)


@pytest.mark.parametrize(("suffix", "folder"), [("", "candlecast"), ("@", "candlecast/%i")])
def test_a_retrain_request_starts_the_job_that_removes_it(
    tmp_path: Path, suffix: str, folder: str
) -> None:
    unit, job = (f"candlecast-retrain{suffix}.{kind}" for kind in ("path", "service"))
    for name in (unit, job):
        text = (UNITS / name).read_text()
        # What it would start is not installed where this is checked.
        (tmp_path / name).write_text(re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", text))
    done = analyze("verify", str(tmp_path / unit))
    assert (done.returncode, done.stderr) == (0, "")
    path = (UNITS / unit).read_text()
    assert re.findall(r"^Path\w+=(.+)$", path, re.MULTILINE) == [f"%S/{folder}/{REQUEST}"]
