"""Measure the sustained rate of candles, and the memory of simulated days.

    python -m benchmarks.daemon.soak
    python -m benchmarks.daemon.soak --days 7 --bursts 100

Both feed ccxt's decoded messages to the daemon's own objects in this process. Forecasts go to a
real Mosquitto and are acknowledged, states are prepared, history is written. The exchange's sockets
and the time are simulated.

Sustained: 1,000 symbols close again as soon as all work for their last candles is done.

The days: 20 symbols close every minute. Every minute the metrics are rendered and garbage is
collected as in the daemon, and every five minutes the calibration is saved. The clock runs as fast
as the work allows; waits are 20 times as fast as real time. The slope of the resident memory is
fitted to the second half, when every rolling window is full, from two days up. Its standard error
accounts for the autocorrelation of the samples. What a candle adds to the history is measured too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import uvloop

from benchmarks.harness.in_process import FRAME, Path1m, decode
from benchmarks.harness.processes import mosquitto, rss_mb
from benchmarks.harness.tiny_champion import INSTANCE
from benchmarks.report import machine, print_machine, print_table, save, spread
from daemon.persistence.learned_state import LearnedStateStore
from daemon.runtime.gc_control import GcScheduler, manual_gc
from model.core.market import MarketKey

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from numpy.typing import NDArray

_MINUTES_PER_DAY: Final = 1_440
_SAMPLES: Final = 168
_SAVE_INTERVAL_MIN: Final = 5
_CLOCK_SPEED: Final = 20.0
_WARM_BURSTS: Final = 3
_WAITING: Final = "candlecast_history_waiting_rows"
_MAX_WAITING_ROWS: Final = 20_000
_HISTORY: Final = "history.sqlite"
_WAL: Final = "history.sqlite-wal"
_OUTCOMES: Final = ("published", "late", "dropped", "skipped")


async def _until_waiting(path: Path1m, rows: int) -> None:
    """Wait until at most ``rows`` rows of history wait to be written."""
    while (path.metrics.registry.get_sample_value(_WAITING) or 0) > rows:
        await path.clock.sleep(0.05)


def _account(path: Path1m) -> dict[str, float]:
    """Forecasts by outcome, and rows of history that were lost."""
    sample = path.metrics.registry.get_sample_value
    counts = {
        outcome: sample("candlecast_predictions_total", {"outcome": outcome}) or 0.0
        for outcome in _OUTCOMES
    }
    return {**counts, "history rows lost": sample("candlecast_history_lost_rows_total") or 0.0}


async def sustain(symbols: int, bursts: int, folder: Path, port: int) -> dict[str, Any]:
    """Measure candles per second while all work for a burst is done before the next."""
    path = Path1m(symbols, folder, port)
    wall_s, cpu_s = [], []
    async with path.running():
        # The queue cannot hold all histories at once.
        await _until_waiting(path, 0)
        before = _account(path)
        with manual_gc():
            for _ in range(_WARM_BURSTS + bursts):
                messages = decode(path.closing_frames())
                await _until_waiting(path, 0)
                started = time.perf_counter(), time.process_time()
                path.receive(messages)
                await path.scheduler.wait_idle()
                wall_s.append(time.perf_counter() - started[0])
                await _until_waiting(path, 0)
                cpu_s.append(time.process_time() - started[1])
        account = {name: number - before[name] for name, number in _account(path).items()}
    wall_s, cpu_s = wall_s[_WARM_BURSTS:], cpu_s[_WARM_BURSTS:]
    return {
        "symbols": symbols,
        "candles_a_second": symbols * bursts / sum(wall_s),
        "burst_ms": spread(1e3 * np.array(wall_s))._asdict(),
        "cpu_us_a_candle": 1e6 * sum(cpu_s) / (symbols * bursts),
        "account": account,
    }


async def pass_days(symbols: int, days: float, folder: Path, port: int) -> dict[str, Any]:
    """Run ``days`` of minutes, and measure memory, tasks and descriptors."""
    path = Path1m(symbols, folder, port, _CLOCK_SPEED)
    learned_state = LearnedStateStore(path.recorder, MarketKey(INSTANCE, FRAME), path.clock)
    minutes = round(days * _MINUTES_PER_DAY)
    samples: list[tuple[float, float, int, int]] = []
    started_s = time.monotonic()
    async with path.running():
        await learned_state.restore(path.served)
        await _until_waiting(path, 0)
        bytes_before = _database_bytes(folder)
        wal_bytes = 0
        tidy = GcScheduler(path.clock.now_ms / 1e3)
        with manual_gc():
            for minute in range(minutes):
                path.receive(decode(path.closing_frames()))
                await path.scheduler.wait_idle()
                await path.metrics.render("", path.clock)
                if minute % _SAVE_INTERVAL_MIN == 0:
                    await learned_state.save(path.served)
                tidy.collect(path.clock.now_ms / 1e3, idle=True)
                # Rows that the history's thread has not written yet would count as a leak.
                await _until_waiting(path, _MAX_WAITING_ROWS)
                if minute % max(1, minutes // _SAMPLES) == 0:
                    await _until_waiting(path, 0)
                    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
                    counts = len(asyncio.all_tasks()), descriptors
                    wal_bytes = max(wal_bytes, (folder / _WAL).stat().st_size)
                    samples.append((minute / _MINUTES_PER_DAY, rss_mb(os.getpid()), *counts))
        # Wait for the last acknowledgements.
        await asyncio.sleep(1.0)
        account = _account(path)
        await _until_waiting(path, 0)
        history_bytes = _database_bytes(folder) - bytes_before
    table = np.array(samples)
    half = table[len(table) // 2 :]
    slope, error = trend(half[:, 0], half[:, 1])
    return {
        "symbols": symbols,
        "days": days,
        "took_s": time.monotonic() - started_s,
        "rss_mb": {
            f"day {day:.1f}": mb for day, mb in table[:: max(1, len(table) // 7), :2].tolist()
        },
        "rss_mb_a_day": slope,
        "rss_mb_a_day_error": error,
        "tasks": [int(table[:, 2].min()), int(table[:, 2].max())],
        "descriptors": [int(table[:, 3].min()), int(table[:, 3].max())],
        "history_bytes_a_candle": history_bytes / (symbols * minutes),
        "wal_mb": wal_bytes / 1e6,
        "account": account,
        "samples": samples,
    }


def _database_bytes(folder: Path) -> int:
    """Size of the history with what is still in its write-ahead log."""
    with contextlib.closing(sqlite3.connect(folder / _HISTORY)) as database:
        pages, size = (
            int(database.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "page_size")
        )
    return pages * size


def trend(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope of a fitted line and its standard error.

    The error of least squares, widened by the residuals' autocorrelation r at lag 1 as for an AR(1)
    process: times the root of (1 + r) / (1 - r).
    """
    slope, level = np.polyfit(x, y, 1)
    rest = y - slope * x - level
    deviation = float(rest @ rest)
    if not deviation:
        return float(slope), 0.0
    error = (deviation / (len(x) - 2) / np.sum((x - x.mean()) ** 2)) ** 0.5
    r = min(0.99, max(0.0, float(rest[1:] @ rest[:-1]) / deviation))
    return float(slope), float(error * ((1 + r) / (1 - r)) ** 0.5)


def _flat(nested: dict[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in nested.items():
        if isinstance(value, dict):
            rows += [(f"{name}, {inner}", number) for inner, number in _flat(value)]
        else:
            rows.append((name, value))
    return rows


def main() -> None:
    """Measure, print the tables, write them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--days", type=float, default=1.0, help="of minutes, 20 symbols")
    parser.add_argument("--bursts", type=int, default=60, help="of 1,000 symbols, sustained")
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine("onnxruntime", "mqtt5", "uvloop")}
    print_machine(report["machine"])
    jobs: dict[str, Callable[[Path, int], Coroutine[Any, Any, dict[str, Any]]]] = {
        "days": lambda folder, port: pass_days(20, args.days, folder, port),
        "sustained": lambda folder, port: sustain(1_000, args.bursts, folder, port),
    }
    for name, work in jobs.items():
        with tempfile.TemporaryDirectory() as folder, mosquitto(Path(folder)) as broker:
            report[name] = uvloop.run(work(Path(folder), broker.port))
        shown = {key: value for key, value in report[name].items() if key != "samples"}
        print_table((name, ""), _flat(shown))
    save("soak", report)


if __name__ == "__main__":
    main()
