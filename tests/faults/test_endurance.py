"""Check that a thousand reconnects and a simulated week leak nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from daemon.feed import connection_supervisor
from daemon.mqtt import publisher as publisher_module
from tests.faults import assertions
from tests.faults.fault_harness import FaultHarness
from tests.replay.replay_harness import nothing_left
from tests.sandbox.scaled import minute_playback, second_playback

Rounds = Callable[[int, int], int]

# Each request for history has another URL, of which these modules cache the last 128.
CACHING_MODULES = ("urllib.parse", "yarl._url", "yarl._parse")


class Footprint(NamedTuple):
    """What a process holds at a moment, after a collection."""

    tasks: int
    descriptors: int
    objects: int
    resident_kb: int


def footprint() -> Footprint:
    for name in CACHING_MODULES:
        for function in vars(sys.modules[name]).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Footprint(
        len(asyncio.all_tasks()),
        sum(1 for _ in Path("/proc/self/fd").iterdir()),
        len(gc.get_objects()),
        pages * os.sysconf("SC_PAGE_SIZE") // 1024,
    )


def growth(held: Sequence[Footprint]) -> Footprint:
    """From the first third to the last one; the least of each, because timers come and go."""
    third = len(held) // 3
    earlier, later = (zip(*part, strict=True) for part in (held[:third], held[-third:]))
    return Footprint(*(min(b) - min(a) for a, b in zip(earlier, later, strict=True)))


@pytest.fixture(autouse=True)
async def _nothing_noted() -> AsyncIterator[None]:
    """What debugging notes of each task, and each captured line of log, would pass for growth."""
    asyncio.get_running_loop().set_debug(False)
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


async def test_reconnects_leave_tasks_descriptors_and_memory_where_they_were(
    tmp_path: Path, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pauses between attempts would take hours.
    for module in (connection_supervisor, publisher_module):
        monkeypatch.setattr(module, "_RECONNECT_MIN_S", 0.1)
        monkeypatch.setattr(module, "_RECONNECT_MAX_S", 0.1)
    harness = FaultHarness(tmp_path, second_playback(3), 6.0)
    held = []
    async with nothing_left(), harness.running():
        for number in range(rounds(18, 1_000)):
            await reconnected(harness, politely=bool(number % 2))
            held.append(footprint())
    check(held, len(held))


async def reconnected(harness: FaultHarness, *, politely: bool) -> None:
    """Lose every connection, and wait until forecasts go over new ones."""
    ways = [harness.ways[way] for way in ("stream", "broker")]
    before = [way.accepted for way in ways]
    for way in harness.ways.values():
        way.cut(politely=politely)
    await harness.until(lambda: all(w.accepted > b for w, b in zip(ways, before, strict=True)))
    harness.published.clear()
    await harness.until(lambda: harness.is_current(0))


async def test_a_week_leaves_the_process_as_it_was(tmp_path: Path, rounds: Rounds) -> None:
    now_ms = int(time.time() * 1e3)
    # What fills up shall be full soon.
    accuracy, history = {"window": 30, "min_n": 10}, {"keep_days": 1}
    playback = minute_playback(3, now_ms)
    harness = FaultHarness(tmp_path, playback, 300.0, accuracy=accuracy, history=history)
    held = []
    async with nothing_left(), harness.running():
        # By then the buffers of recent candles are full.
        await harness.clock.sleep(5_400.0)
        start_s = harness.clock.monotonic()
        for sample in range(1, rounds(12, 7 * 24 * 12) + 1):
            await harness.clock.sleep(start_s + 300.0 * sample - harness.clock.monotonic())
            harness.published.clear()
            held.append(footprint())
        await harness.until(lambda: harness.is_current(0))
    check(held, len(held))
    await asyncio.to_thread(assertions.check, harness)


def check(held: Sequence[Footprint], times: int) -> None:
    """Nothing may grow with how often or how long."""
    grown = growth(held)
    report = "\n".join(map(str, held))
    # Some come and go; whatever leaks does so every time.
    assert max(grown.tasks, grown.descriptors) < 10, report
    assert grown.objects < 500 + 2 * times, report
    assert grown.resident_kb < 4_000 + 10 * times, report
