"""Compute how many symbols fit on a machine from the results of the benchmarks."""

from __future__ import annotations

import textwrap
from typing import Any, Final

import numpy as np

from benchmarks.harness.pipeline_run import DAEMON, QUIET
from benchmarks.report import DOCS_WIDTH, number, table

_UPDATE_S: Final = 2.0
"""Binance sends a changed candle that has not closed every two seconds, except those of 1 s."""

_TIMEFRAMES: Final = {"1s": 1, "1m": 60, "5m": 300, "1h": 3_600}
_DAY_S: Final = 86_400

Result = dict[str, Any]


def updates(candle_s: float) -> float:
    """Messages for a candle before the one that closes it."""
    return 0.0 if candle_s < _UPDATE_S else candle_s / _UPDATE_S


def cores(symbols: int, candle_us: float, update_us: float, candle_s: float) -> float:
    """Cores that the daemon needs, on average.

    Args:
        symbols: how many.
        candle_us: processor time of a closing candle, with everything that follows.
        update_us: processor time of a message for a candle that has not closed.
        candle_s: length of a candle.
    """
    return 1e-6 * symbols * (candle_us + updates(candle_s) * update_us) / candle_s


def capacity(pipeline: Result, receive: Result, soak: Result) -> str:
    """Measured points, what they amount to for longer candles, and the formula."""
    update_us = receive["us_per_update"]["p50"]
    row_bytes, wal_mb = soak["days"]["history_bytes_a_candle"], soak["days"]["wal_mb"]
    found = [
        (int(symbols), daemons["ours"])
        for symbols, daemons in sorted(pipeline[QUIET].items(), key=lambda size: int(size[0]))
        if "message_ms" in daemons.get("ours", {})
    ]
    points = table(
        (
            *("symbols", "p99 ms", "late", "resident MB", "µs a candle"),
            *(f"% of a core, {name}" for name in _TIMEFRAMES),
        ),
        (
            (
                f"{symbols:,}",
                row["message_ms"]["p99"],
                row["late"],
                row["rss_mb"],
                row["cpu_us_a_candle"][DAEMON],
                *(
                    100 * cores(symbols, row["cpu_us_a_candle"][DAEMON], update_us, candle_s)
                    for candle_s in _TIMEFRAMES.values()
                ),
            )
            for symbols, row in found
        ),
    )
    traffic = table(
        ("symbols", "candles", "messages a second", "kB a second", "history, MB a day"),
        (
            (
                f"{symbols:,}",
                name,
                symbols / candle_s,
                symbols / candle_s * row["payload_bytes"] / 1e3,
                symbols / candle_s * _DAY_S * row_bytes / 1e6,
            )
            for symbols, row in found
            for name, candle_s in _TIMEFRAMES.items()
        ),
    )
    formula = (
        "Cores = symbols × (c + u × f) ÷ length of a candle: c is the time of a closing candle "
        f"(the column above), f = {number(update_us)} µs that of an update before it closes, u the "
        "number of updates, one every two seconds on Binance. "
        f"{_memory([(symbols, row['rss_mb']) for symbols, row in found])}Disk: "
        f"{number(row_bytes)} bytes of history for each candle with its forecast, and a "
        f"write-ahead log of at most {number(wal_mb)} MB."
    )
    return f"{points}\n\n{traffic}\n\n{textwrap.fill(formula, DOCS_WIDTH)}"


def _memory(points: list[tuple[int, float]]) -> str:
    """A line through the resident memory; empty with less than two points."""
    if len(points) <= 1:
        return ""
    symbols, rss_mb = np.array(points, np.float64).T
    slope, base = np.polyfit(symbols, rss_mb, 1)
    return f"Memory = {number(float(base))} MB + {number(1e3 * float(slope))} kB × symbols. "
