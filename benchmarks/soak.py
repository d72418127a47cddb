"""How many candles a second the path sustains, and what a week of them does to memory.

    python -m benchmarks.soak
    python -m benchmarks.soak --symbols 5 --minutes 600

Ccxt's messages are fed as fast as each minute's forecasts are out, acknowledged states prepared,
history written and messages sent to a real Mosquitto; a week is 10,080 minutes. The slope of the
resident memory is fitted over the second half, when every rolling window has long been full.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from benchmarks.inprocess import Path1m, decode
from benchmarks.processes import mosquitto, rss_mb
from benchmarks.report import machine, print_machine, print_table, save

_DAY: Final = 1_440
_SAMPLES: Final = 84
_WAITING: Final = "candlecast_history_waiting_rows"
_MOST_WAITING: Final = 20_000


async def _until_waiting(path: Path1m, rows: int) -> None:
    """Wait until at most so many rows of history wait to be written."""
    while (path.metrics.registry.get_sample_value(_WAITING) or 0) > rows:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def soak(symbols: int, minutes: int, folder: Path, port: int) -> dict[str, Any]:
    """Run so many minutes; what was sustained and what grew."""
    path = Path1m(symbols, folder, port)
    sample = path.metrics.registry.get_sample_value
    samples = []
    working_s = 0.0
    async with path.running():
        for minute in range(minutes):
            messages = decode(path.closing_frames())
            started = time.perf_counter()
            path.receive(messages)
            await path.pipeline.settled()
            working_s += time.perf_counter() - started
            # The history's thread has its own pace; what it has not written yet is no leak.
            await _until_waiting(path, _MOST_WAITING)
            if minute % max(1, minutes // _SAMPLES) == 0:
                await _until_waiting(path, 0)
                gc.collect()
                descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
                counts = len(asyncio.all_tasks()), descriptors
                samples.append((minute / _DAY, rss_mb(os.getpid()), *counts))
        await asyncio.sleep(1.0)
        fates = {
            fate: sample("candlecast_predictions_total", {"outcome": fate}) or 0.0
            for fate in ("published", "late", "dropped", "skipped")
        }
        lost = sample("candlecast_history_lost_rows_total")
    table = np.array(samples)
    half = table[len(table) // 2 :]
    return {
        "candles": symbols * minutes,
        "candles_a_second": symbols * minutes / working_s,
        "rss_mb_first_and_last": [round(float(table[at, 1]), 1) for at in (0, -1)],
        "rss_mb_a_day": float(np.polyfit(half[:, 0], half[:, 1], 1)[0]),
        "tasks_least_and_most": [int(table[:, 2].min()), int(table[:, 2].max())],
        "descriptors_least_and_most": [int(table[:, 3].min()), int(table[:, 3].max())],
        "forecasts": fates,
        "history_rows_lost": lost,
        "samples": samples,
    }


def main() -> None:
    """Measure, print the table, write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--symbols", type=int, default=20, help="closing every minute")
    parser.add_argument("--minutes", type=int, default=7 * _DAY, help="a week by default")
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine("onnxruntime", "mqtt5", "uvloop")}
    print_machine(report["machine"])
    with tempfile.TemporaryDirectory() as folder, mosquitto(Path(folder)) as port:
        report |= uvloop.run(soak(args.symbols, args.minutes, Path(folder), port))
    print_table(
        ("", f"{args.symbols} symbols, {args.minutes} minutes"),
        ((name, value) for name, value in report.items() if name not in ("machine", "samples")),
    )
    save("soak", report)


if __name__ == "__main__":
    main()
