"""The priority of a nightly job, and its pauses."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from daemon.jobs.low_priority import lower_priority, pause_ms, yield_at_candle_close
from model.core.candle import Timeframe
from tests.support.manual_clock import ManualClock


def modest() -> None:
    # Libraries start thread pools when they are imported.
    done = threading.Event()
    early = threading.Thread(target=done.wait)
    early.start()
    before = os.nice(0)
    lower_priority(4, 1)
    threads = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    assert early.native_id in threads
    for thread in threads:
        assert os.getpriority(os.PRIO_PROCESS, thread) == min(19, before + 4)
        assert len(os.sched_getaffinity(thread)) == 1
        assert os.sched_getscheduler(thread) == os.SCHED_IDLE
    done.set()
    early.join()


def test_a_job_runs_at_the_lowest_priority_and_is_bounded() -> None:
    # In a process of its own, because priority cannot be raised again.
    process = multiprocessing.get_context("spawn").Process(target=modest)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_priorities_that_may_not_be_set_are_left_to_the_service_manager(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", forbidden)
    caplog.set_level("INFO")
    lower_priority(4, 1)
    assert "cannot lower the priority or bound the cores: Operation not permitted" in caplog.text


MINUTE, SECOND, WEEK = (Timeframe.parse(text) for text in ("1m", "1s", "1w"))
CLOSE_MS = 1_776_859_680_000


@pytest.mark.parametrize(
    ("since_close_ms", "expected_ms"),
    [(-26, 0), (-25, 2_525), (0, 2_500), (2_004, 496), (2_499, 1), (2_500, 0), (30_000, 0)],
)
def test_it_pauses_from_just_before_a_close_until_all_have_come(
    since_close_ms: int, expected_ms: int
) -> None:
    assert pause_ms(CLOSE_MS + since_close_ms, MINUTE) == expected_ms


def test_of_short_candles_it_pauses_a_quarter_at_most() -> None:
    pauses_ms = [pause_ms(CLOSE_MS + at_ms, SECOND) for at_ms in range(1_000)]
    assert sum(length_ms > 0 for length_ms in pauses_ms) == 250
    assert pauses_ms[0] == 225
    assert pauses_ms[224:975] == [1, *[0] * 750]
    assert pauses_ms[975:] == list(range(250, 225, -1))


def test_it_knows_when_weeks_close() -> None:
    assert pause_ms(WEEK.floor(CLOSE_MS), WEEK) == 2_500
    assert pause_ms(CLOSE_MS, WEEK) == 0


def test_it_sleeps_while_candles_close_and_no_longer() -> None:
    clock = ManualClock(CLOSE_MS - 30, auto_advance=True)
    yield_at_candle_close(clock, MINUTE)
    assert clock.slept == []
    clock.move_to(CLOSE_MS + 100)
    for _ in range(3):
        yield_at_candle_close(clock, MINUTE)
    assert clock.slept == [2.4]
    assert clock.wall_ms() == CLOSE_MS + 2_500
