"""How a job that has all night stays out of the way of what must answer at once."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def be_modest(nice: int, threads: int) -> None:
    """Take only what nobody else on this machine wants, and no more than so many cores.

    Niceness alone does not do: whoever wakes up has to wait until a niced task's slice of some
    milliseconds is over, while an idle-policy task gives way at once. Whatever library computes
    asks the system how many cores there are, so that bounding these bounds all of them. A service
    manager that forbids any of it has its own bounds.
    """
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    try:
        # All these belong to a thread, and numpy has started some as it was imported.
        for thread in (int(task.name) for task in Path("/proc/self/task").iterdir()):
            before = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, before + nice)
            os.sched_setaffinity(thread, cores)
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        log.info("priority and cores stay as they are: %s", error.strerror)
