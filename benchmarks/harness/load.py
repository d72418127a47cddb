"""Tell how busy other processes kept the machine during a benchmark."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_BUSY: Final = (0, 1, 2, 7)
"""Columns of /proc/stat: user, nice, system, and what other guests took of a virtual machine. Idle
time and interrupts, which belong to no process, are left out."""

_GROUP: Final = 2
_USED: Final = slice(11, 15)
"""Fields of /proc/PID/stat after the name: process group; time of the process and of the children
it has waited for, in user and in kernel mode."""


class Usage(NamedTuple):
    """Processor time up to now.

    Attributes:
        at_s: now, monotonic.
        all_s: processor seconds of all processes.
        own_s: of them, those of this process group.
    """

    at_s: float
    all_s: float
    own_s: float


def usage() -> Usage:
    """Read the processor time used so far."""
    own_s = sum(os.times()[:4]) + sum(
        own_ticks(stat, os.getpgrp()) / _TICKS_A_SECOND for stat in _other_processes()
    )
    return Usage(time.monotonic(), _busy_s(Path("/proc/stat").read_text("ascii")), own_s)


def others(before: Usage, after: Usage) -> float:
    """Cores that other processes used between two readings, on average."""
    used_s = (after.all_s - before.all_s) - (after.own_s - before.own_s)
    # Both are counted in ticks, and the kernel rounds.
    return max(0.0, used_s / (after.at_s - before.at_s))


def own_ticks(stat: str, group: int) -> int:
    """Ticks used by a process if it is in ``group``, from its line of /proc/PID/stat."""
    # The name is in parentheses and may contain anything.
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[_USED])) if int(fields[_GROUP]) == group else 0


def _busy_s(stat: str) -> float:
    ticks = stat.partition("\n")[0].split()[1:]
    return sum(int(ticks[column]) for column in _BUSY) / _TICKS_A_SECOND


def _other_processes() -> list[str]:
    """Lines of /proc/PID/stat of all processes but this one."""
    lines = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            # The process may have ended.
            with contextlib.suppress(OSError):
                lines.append((folder / "stat").read_text("utf-8", "replace"))
    return lines
