"""How a job that has all night stays out of the way of what must answer at once."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from daemon.runtime.clock import Clock
    from model.core.candle import Timeframe

log = logging.getLogger("candlecast.jobs")

_LEAD_MS: Final = 25
"""Longer than a batch takes, so that none is under way when a candle closes."""

_AFTER_MS: Final = 2_500
"""Exchanges deliver a close up to two seconds late; then the next states are prepared."""

_MOST: Final = 4
"""Of short candles, this part at most is rested."""


def lower_priority(nice: int, threads: int) -> None:
    """Take only what nobody else on this machine wants, and no more than so many cores.

    Whoever wakes up may have to wait until a niced task's slice of some milliseconds is over; one
    of the idle policy gives way at once. Whatever library computes asks the system how many cores
    there are, so that bounding these bounds all of them. A service manager that forbids any of it
    has its own bounds.
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


def rest_ms(now_ms: int, timeframe: Timeframe) -> int:
    """How long to rest from now on, so that all cores are free when candles close.

    All candles of a timeframe close in the same instant, and whatever the daemon does about them
    it does then: the rest of the time belongs to others.

    Args:
        now_ms: Unix milliseconds.
        timeframe: length of the candles.
    """
    whole_ms = min(_LEAD_MS + _AFTER_MS, timeframe.ms // _MOST)
    since_ms = (now_ms + _LEAD_MS - timeframe.origin_ms) % timeframe.ms
    return max(0, whole_ms - since_ms)


def yield_at_candle_close(clock: Clock, timeframe: Timeframe) -> None:
    """Sleep while candles close; to be called often, by a thread that runs no event loop."""
    pause_ms = rest_ms(clock.wall_ms(), timeframe)
    if pause_ms:
        asyncio.run(clock.sleep(pause_ms / 1e3))
