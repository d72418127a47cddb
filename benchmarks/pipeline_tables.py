"""Format the results of `benchmarks.daemon.pipeline` as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from benchmarks.harness.pipeline_run import BUSY, DAEMON, LOOP, QUIET
from benchmarks.report import number, table

_OURS: Final = "ours"
_ROLES: Final = ("exchange", "subscriber", "scraper", "broker", DAEMON)

Result = dict[str, Any]


def _sizes(of: Result, load: str = QUIET) -> Iterator[tuple[str, dict[str, Any]]]:
    for symbols, daemons in sorted(of[load].items(), key=lambda size: int(size[0])):
        yield f"{int(symbols):,}", {n: row for n, row in daemons.items() if "failed" not in row}


def pipeline(of: Result) -> str:
    """Latencies of all daemons at all sizes, quiet and busy."""
    head = ("symbols", "machine", "daemon", "p50 ms", "p99 ms", "longest", "last of a burst, p50")
    return table(
        (*head, "p99", "p99 against candlecast", "late", "missing", "bursts"),
        (
            (
                symbols,
                load,
                _daemon(name),
                *row["message_ms"].values(),
                row["burst_end_ms"]["p50"],
                row["burst_end_ms"]["p99"],
                _against(row, daemons) if name != _OURS else "",
                row["late"] if row["where_ms"] else "–",
                row["missing"],
                row["bursts"],
            )
            for load in (QUIET, BUSY)
            for symbols, daemons in _sizes(of, load)
            for name, row in daemons.items()
        ),
    )


def _daemon(name: str) -> str:
    return "candlecast" if name == _OURS else name.replace("ours/", "candlecast, ")


def _against(row: Result, daemons: dict[str, Any]) -> str:
    if _OURS not in daemons:
        return "–"
    return f"{row['message_ms']['p99'] / daemons[_OURS]['message_ms']['p99']:.2f} ×"


def _ours(of: Result) -> list[tuple[str, dict[str, Any]]]:
    return [(symbols, daemons[_OURS]) for symbols, daemons in _sizes(of) if _OURS in daemons]


def cpu(of: Result, received: Result) -> str:
    """Processor time of all processes, and what ccxt alone needs."""
    us = received["us_per_candle"]
    ccxt_us = us["decoding the frame (ccxt)"]["p50"] + us["ccxt's own handler, no tap"]["p50"]
    head = ("symbols", "machine", "daemon", "exchange", "subscriber", "scraper", "broker")
    rows = [
        (symbols, load, _daemon(name), *(row["cpu_us_a_candle"][role] for role in _ROLES))
        for load in (QUIET, BUSY)
        for symbols, daemons in _sizes(of, load)
        for name, row in daemons.items()
    ]
    shares = table(
        (*head, "daemon itself", "broker ÷ daemon"),
        ((*row, f"{row[-2] / row[-1]:.2f}") for row in rows),
    )
    return (
        f"{shares}\n\nccxt alone, its decoding and its own handler: {number(ccxt_us)} µs a candle."
    )


def where(of: Result) -> str:
    """The parts of the latency, at all sizes."""
    found = _ours(of)
    parts = [name for name in found[0][1]["where_ms"] if name != "sent to acknowledged"]
    return table(
        ("symbols", *parts, "last of a burst"),
        (
            (symbols, *(row["where_ms"][part] for part in parts), row["burst_end_ms"]["p50"])
            for symbols, row in found
        ),
    )


def stages(of: Result) -> str:
    """The daemon's own stages, at all sizes."""
    found = _ours(of)
    names = list(found[0][1]["stage_us_per_candle"])
    return table(
        ("symbols", *names, "processor of the loop", "all threads", "candles a flush"),
        (
            (
                symbols,
                *row["stage_us_per_candle"].values(),
                row["cpu_us_a_candle"][LOOP],
                row["cpu_us_a_candle"][DAEMON],
                row["batch_size"],
            )
            for symbols, row in found
        ),
    )
