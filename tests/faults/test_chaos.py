"""Inject random faults on every connection at once; afterwards no trace of them is left.

make chaos                      ten minutes from a seed of the moment
make chaos SEED=17 MINUTES=1    a certain schedule again
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.assertions import check
from tests.faults.fault_harness import Arena
from tests.faults.schedule import draw_schedule
from tests.replay.replay_harness import nothing_left
from tests.sandbox.scaled import second_playback

FACTOR = 4.0
SEED, MINUTES = "CANDLECAST_CHAOS_SEED", "CANDLECAST_CHAOS_MINUTES"


def seeds() -> Iterator[tuple[int, float]]:
    """Seeds, and for how many of our seconds faults shall happen."""
    minutes = float(os.environ.get(MINUTES) or 0)
    if not minutes:
        yield from ((seed, 3.0) for seed in (1, 2, 3))
        return
    seed, end_s = int(os.environ.get(SEED) or time.time()), time.monotonic() + 60 * minutes
    while time.monotonic() < end_s:
        yield seed, 45.0
        seed += 1


async def test_after_all_faults_windows_and_forecasts_are_those_of_a_quiet_day(
    tmp_path: Path,
) -> None:
    for seed, seconds in seeds():
        await trial(tmp_path / str(seed), seed, seconds)


async def trial(folder: Path, seed: int, seconds: float) -> None:
    folder.mkdir()
    schedule = draw_schedule(seed, seconds * FACTOR)
    print(f"seed {seed}:", *schedule, sep="\n  ")  # noqa: T201 - shown when it fails
    arena = Arena(folder, second_playback(3), FACTOR, seed)
    clock = arena.clock
    async with nothing_left(), arena.running():
        await arena.play(schedule)
        calm_s, since = clock.monotonic(), len(arena.published)
        await arena.until(lambda: arena.is_current(since))
        print(f"current {clock.monotonic() - calm_s:.1f} s after the last fault")  # noqa: T201
    await asyncio.to_thread(check, arena)
    print(f"{len(arena.published)} published, ended: {arena.ended}")  # noqa: T201


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits by the real clock inside ccxt shall wait no longer than by the trial's."""
    monkeypatch.setattr("ccxt.pro.binance.timeout", int(10_000 / FACTOR), raising=False)
