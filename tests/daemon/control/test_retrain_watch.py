"""Check that the metrics show the nightly job's status, whatever its file contains."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.control.retrain_watch import FIRST_START, first_start_ms, watch_retrain_status
from daemon.metrics.metrics import Metrics
from model.shared_state.retrain_status import STATUS, RetrainStatus
from tests.support.manual_clock import ManualClock

NOW_MS = 1_795_435_200_000
DONE = RetrainStatus(
    finished_ms=NOW_MS,
    duration_s=812.5,
    success_ms=NOW_MS,
    error=None,
    version="20261123T020000Z-3f9a1c",
    promoted=True,
    rule="better",
    reason="error ratio 0.9980 against the champion's 1.0000",
    candles=10_080,
    challenger_ratio=0.998,
    champion_ratio=1.0,
    gain=0.002,
    standard_error=0.0005,
)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"candlecast_retrain_{name}", labels)


def test_a_written_status_is_read_back(tmp_path: Path) -> None:
    assert RetrainStatus.read(tmp_path) is None
    DONE.write(tmp_path)
    assert RetrainStatus.read(tmp_path) == DONE
    failed = RetrainStatus(NOW_MS, 3.0, None, "it cannot be reached")
    failed.write(tmp_path)
    assert RetrainStatus.read(tmp_path) == failed
    assert [path.name for path in tmp_path.iterdir()] == [STATUS]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 1}', "\0", '{"finished_ms": "x"}'])
def test_a_damaged_status_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / STATUS).write_text(text)
    assert RetrainStatus.read(tmp_path) is None


def test_the_first_start_is_noted_once(tmp_path: Path) -> None:
    assert first_start_ms(tmp_path, NOW_MS) == NOW_MS
    assert first_start_ms(tmp_path, NOW_MS + 1) == NOW_MS
    assert [path.name for path in tmp_path.iterdir()] == [FIRST_START]


@pytest.mark.parametrize("text", ["", "x", "\0", "-5", "9" * 30, str(NOW_MS + 1)])
def test_an_invalid_first_start_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / FIRST_START).write_text(text)
    assert first_start_ms(tmp_path, NOW_MS) == NOW_MS
    assert first_start_ms(tmp_path, NOW_MS + 1) == NOW_MS


def test_an_unwritable_first_start_is_the_current_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert first_start_ms(tmp_path / "missing", NOW_MS) == NOW_MS
    assert "first-start cannot be written (No such file or directory)" in caplog.text


async def next_poll(clock: ManualClock) -> None:
    before = len(clock.slept)
    clock.move_to(clock.wall_ms() + 60_000)
    while len(clock.slept) == before:
        await asyncio.sleep(0.001)


@pytest.mark.may_block("the test writes the file")
async def test_the_metrics_follow_the_file(tmp_path: Path) -> None:
    metrics, clock = Metrics(), ManualClock(NOW_MS)
    assert math.isnan(value(metrics, "duration_seconds") or 0.0)
    task = asyncio.get_running_loop().create_task(watch_retrain_status(tmp_path, metrics, clock))
    try:
        while not clock.slept:
            await asyncio.sleep(0.001)
        assert math.isnan(value(metrics, "last_success_timestamp_seconds") or 0.0)
        first_start = "candlecast_first_start_timestamp_seconds"
        assert metrics.registry.get_sample_value(first_start) == NOW_MS / 1000
        DONE.write(tmp_path)
        await next_poll(clock)
        assert value(metrics, "last_success_timestamp_seconds") == NOW_MS / 1000
        assert value(metrics, "duration_seconds") == 812.5
        assert value(metrics, "mae_ratio", model="challenger") == 0.998
        assert value(metrics, "gain_stderr") == 0.0005
        assert (value(metrics, "promoted"), value(metrics, "failed")) == (1.0, 0.0)
        # A damaged or missing file changes nothing.
        (tmp_path / STATUS).write_text("{")
        await next_poll(clock)
        (tmp_path / STATUS).unlink()
        await next_poll(clock)
        assert value(metrics, "gain") == 0.002
        replace(DONE, error="no candles", promoted=False, champion_ratio=None).write(tmp_path)
        await next_poll(clock)
        assert (value(metrics, "promoted"), value(metrics, "failed")) == (0.0, 1.0)
        assert math.isnan(value(metrics, "mae_ratio", model="champion") or 0.0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
