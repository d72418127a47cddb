"""Run a job at idle priority and pause it at candle closes, so that it delays no forecast."""

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

NICENESS: Final = 15
"""Of the nightly job. It counts only where the idle scheduling policy is refused."""

_PAUSE_BEFORE_CLOSE_MS: Final = 25
"""Longer than a training batch takes, so that none runs when a candle closes."""

_PAUSE_AFTER_CLOSE_MS: Final = 2_500
"""Exchanges send a close up to two seconds late; then the daemon prepares its next states."""

_MAX_PAUSE_DIVISOR: Final = 4
"""A pause takes at most this fraction (one quarter) of a candle."""


def lower_priority(nice: int, threads: int) -> None:
    """Give this process the idle scheduling policy, a nice value and a number of cores.

    A niced task keeps a core for some milliseconds when another task wakes up; a task of the idle
    policy yields at once. Libraries use as many threads as there are allowed cores. If the service
    manager forbids any of this, its own limits apply.

    Args:
        nice: added to the nice value.
        threads: number of cores to use.
    """
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    try:
        # These settings belong to threads, and numpy starts threads when it is imported.
        for thread in (int(task.name) for task in Path("/proc/self/task").iterdir()):
            current = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, current + nice)
            os.sched_setaffinity(thread, cores)
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        log.info("cannot lower the priority or bound the cores: %s", error.strerror)


def pause_ms(now_ms: int, timeframe: Timeframe) -> int:
    """Compute how long to pause from now on, so that all cores are free when candles close.

    All candles of a timeframe close at the same time, and the daemon's work is done then.

    Args:
        now_ms: Unix milliseconds.
        timeframe: length of the candles.

    Returns:
        Milliseconds; 0 outside of a pause.
    """
    longest_ms = _PAUSE_BEFORE_CLOSE_MS + _PAUSE_AFTER_CLOSE_MS
    length_ms = min(longest_ms, timeframe.ms // _MAX_PAUSE_DIVISOR)
    elapsed_ms = (now_ms + _PAUSE_BEFORE_CLOSE_MS - timeframe.origin_ms) % timeframe.ms
    return max(0, length_ms - elapsed_ms)


def yield_at_candle_close(clock: Clock, timeframe: Timeframe) -> None:
    """Sleep while candles close. Call it often, in a thread without an event loop."""
    remaining_ms = pause_ms(clock.wall_ms(), timeframe)
    if remaining_ms:
        asyncio.run(clock.sleep(remaining_ms / 1e3))
