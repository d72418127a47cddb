"""Run systemd as PID 1 in namespaces of its own, with the units of a test.

The root folder is read-only inside, and everything that a service may write lies in the test's
folder: this systemd must never delete files of the machine that it runs on. It knows no unit of
that machine, only those of the test and systemd's journal.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import MAX_WAIT_S, program

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEMD = Path("/usr/lib/systemd")
_CLONE_NEWNET = 0x40000000
_TARGETS = (
    *("sysinit", "basic", "multi-user", "timers", "sockets", "network-online", "time-sync"),
    *("shutdown", "umount"),
)
_JOURNAL = (
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
)
_BOOT = """\
set -eu
work=$1; shift
mount --make-rprivate /
mount -o bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs -o mode=755 tmpfs /run
# What is needed from below the folders that are about to be covered.
number=0
for path in "$work" "$@"; do
    number=$((number + 1))
    mkdir -p /run/kept/$number
    mount -o bind "$path" /run/kept/$number
done
mount -o remount,bind,ro /
for folder in /opt /tmp /var/log /var/tmp; do mount -t tmpfs -o mode=755 tmpfs $folder; done
chmod 1777 /tmp /var/tmp
number=0
for path in "$work" "$@"; do
    number=$((number + 1))
    mkdir -p "$path" 2>/dev/null || true
    mount --move /run/kept/$number "$path"
    [ "$path" = "$work" ] || mount -o remount,bind,ro "$path"
done
mount -o bind "$work/etc" /etc
mount -o bind "$work/lib" /var/lib
mkdir -p /opt/candlecast
mount -o bind,ro "$work/installed/opt/candlecast" /opt/candlecast
systemd-sysusers "$work/installed/usr/local/lib/sysusers.d/candlecast.conf"
mount --make-rshared /
export container=unshare
export SYSTEMD_UNIT_PATH="$work/units:$work/installed/usr/local/lib/systemd/system"
export SYSTEMD_GENERATOR_PATH="$work/none" SYSTEMD_ENVIRONMENT_GENERATOR_PATH="$work/none"
exec /usr/lib/systemd/systemd --system --unit=machine.target --show-status=no --log-target=journal
"""


class Machine:
    """A running systemd; made by `machine`."""

    def __init__(self, work: Path, pid: int) -> None:
        """Remember where it is.

        Args:
            work: its folder; units go to ``units``.
            pid: of its PID 1, as seen from here.
        """
        self.work = work
        self.pid = pid

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as root in all its namespaces."""
        return subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", *command],
            capture_output=True,
            text=True,
            check=check,
            timeout=MAX_WAIT_S,
        )

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run systemctl."""
        return self.run("systemctl", *arguments, check=check)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit."""
        text = self.systemctl("show", unit, f"--property={','.join(properties)}").stdout
        return dict(line.split("=", 1) for line in text.splitlines())

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """What a unit has logged."""
        self.run("journalctl", "--sync", check=False)
        text = self.run("journalctl", "--unit", unit, "--output=json").stdout
        return [json.loads(line) for line in text.splitlines()]

    def text(self, unit: str) -> str:
        """What a unit has logged, for a person."""
        return self.run("journalctl", "--unit", unit, "--no-pager").stdout

    def signal(self, unit: str, name: str) -> None:
        """Send a signal to the main process of a unit."""
        self.systemctl("kill", f"--signal={name}", "--kill-whom=main", unit)

    def pid_of(self, unit: str) -> str:
        """The main process of a unit, as the machine numbers it; "0" if there is none."""
        return self.show(unit, "MainPID")["MainPID"]

    def proc(self, pid: str, name: str) -> list[str]:
        """Lines of the kernel's status of a process."""
        return self.run("cat", f"/proc/{pid}/{name}").stdout.splitlines()

    @contextmanager
    def network(self) -> Iterator[None]:
        """Move this thread, and what it starts, into the machine's network."""
        with Path("/proc/self/ns/net").open() as home:
            _enter(Path(f"/proc/{self.pid}/ns/net"))
            try:
                yield
            finally:
                _setns(home.fileno())


def until(
    condition: Callable[[], bool], what: Callable[[], str], within_s: float = MAX_WAIT_S
) -> None:
    """Wait until a condition holds; ``what`` returns the actual state."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def _enter(namespace: Path) -> None:
    with namespace.open() as there:
        _setns(there.fileno())


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def installed(work: Path) -> Path:
    """What `make install DESTDIR=…` makes, its libraries being those of this environment."""
    lock = work / "requirements.lock"
    lock.touch()
    root = work / "installed"
    subprocess.run(
        ["make", "install", f"DESTDIR={root}"],
        cwd=REPOSITORY, check=True, timeout=MAX_WAIT_S, stdout=subprocess.DEVNULL,
        env=os.environ | {"LOCK": str(lock), "PYTHONPATH": sysconfig.get_path("purelib")},
    )  # fmt: skip
    return root


@contextmanager
def machine(work: Path, needed: Sequence[Path]) -> Iterator[Machine]:
    """Boot systemd with what `make install` has put under ``work/installed``.

    Args:
        work: a folder of the test's own; ``units`` in it may hold further units and drop-ins.
        needed: folders that must be readable inside, wherever they are.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can start a systemd in its own namespaces")
    program("systemd-analyze")
    _furnish(work)
    with (work / "boot.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "-m", "-p", "-f", "-n", "-C", "-u", "-i", "--kill-child", "--mount-proc",
             "sh", "-c", _BOOT, "boot", str(work), *map(str, needed)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield Machine(work, _wait_booted(process, work / "boot.log"))
    finally:
        # Its PID 1 goes with it, and with that everything inside.
        process.kill()
        process.wait(MAX_WAIT_S)


def _furnish(work: Path) -> None:
    units = work / "units"
    for folder in (units, work / "lib", work / "none"):
        folder.mkdir(exist_ok=True)
    shutil.copytree("/etc", work / "etc", symlinks=True, dirs_exist_ok=True)
    shutil.copytree(work / "installed" / "etc", work / "etc", dirs_exist_ok=True)
    for name in _TARGETS:
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    for name in _JOURNAL:
        shutil.copy(SYSTEMD / "system" / name, units / name)
    wants = " ".join(_JOURNAL)
    (units / "machine.target").write_text(
        f"[Unit]\nDefaultDependencies=no\nWants={wants}\nAfter={wants}\n"
    )


def _wait_booted(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + MAX_WAIT_S
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < deadline and process.poll() is None:
        found = children.read_text().split()
        if found:
            state = subprocess.run(
                ["nsenter", "--target", found[0], "--all",
                 "systemctl", "is-active", "machine.target"],
                capture_output=True, text=True, check=False, timeout=MAX_WAIT_S,
            )  # fmt: skip
            if state.stdout.strip() == "active":
                return int(found[0])
        time.sleep(0.1)
    pytest.fail(f"systemd did not start:\n{log.read_text(errors='replace')}")
