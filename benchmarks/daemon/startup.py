"""Measure the time until a daemon is ready, and its memory.

    python -m benchmarks.daemon.startup
    python -m benchmarks.daemon.startup --sizes 20 --starts 3

`candlecast run` starts with an empty history, beside a sandbox exchange from which it fetches the
candles that its features need, and a Mosquitto. It is ready when `/readyz` first answers 200. It
then forecasts one candle per second and symbol for half a minute, while it is scraped, before its
resident memory is read. Private memory excludes what is mapped from files, such as libraries. The
restart uses the history that the previous start has written.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.harness.pipeline_run import DAEMONS
from benchmarks.harness.processes import (
    Exchange,
    cpu_s,
    exchange,
    free_port,
    mosquitto,
    private_mb,
    rss_mb,
    running,
)
from benchmarks.harness.scraper import Scraper, wait_ready
from benchmarks.harness.tiny_champion import HISTORY, prepare
from benchmarks.report import machine, print_machine, print_table, save, spread

_PACKAGES: Final = ("ccxt", "onnxruntime", "numpy", "uvloop")
_SETTLE_S: Final = 30.0
_MAX_REPEATED_SYMBOLS: Final = 100
"""With more symbols the exchange's rate limit decides the time, and one start is enough."""


class _Prepared(NamedTuple):
    """A configuration, its HTTP port, and a log file."""

    config: Path
    http_port: int
    log: Path


def _prepare(folder: Path, market: Exchange, broker_port: int) -> _Prepared:
    folder.mkdir()
    http_port = free_port()
    config = prepare(folder, market, broker_port, http_port)
    return _Prepared(config, http_port, folder / "log")


@contextlib.contextmanager
def _started(prepared: _Prepared) -> Iterator[tuple[int, float]]:
    """Start a daemon; yields its process id and the seconds until it was ready."""
    config, http_port, log = prepared
    began_s = time.monotonic()
    with running(*DAEMONS["ours"].command, str(config), log=log) as daemon:
        try:
            wait_ready(http_port, daemon)
        except AssertionError as error:
            error.add_note(log.read_text(encoding="utf-8", errors="replace"))
            raise
        yield daemon.pid, time.monotonic() - began_s


def measure(market: Exchange, starts: int, folder: Path) -> dict[str, Any]:
    """Start ``starts`` times with an empty history, and once with the history of the last start."""
    ready_s: list[float] = []
    used_s: list[float] = []
    found: dict[str, Any] = {}
    with mosquitto(folder) as broker:
        prepared = [_prepare(folder / f"start{n}", market, broker.port) for n in range(starts)]
        for number, one in enumerate(prepared):
            with _started(one) as (pid, took_s):
                ready_s.append(took_s)
                used_s.append(cpu_s(pid)[1])
                if number < starts - 1:
                    continue
                found["rss_mb_when_ready"] = rss_mb(pid)
                with Scraper(one.http_port).scraping():
                    time.sleep(_SETTLE_S)
                found["rss_mb"], found["private_mb"] = rss_mb(pid), private_mb(pid)
        with _started(prepared[-1]) as (_, took_s):
            found["restart_s"] = took_s
    return {
        "starts": starts,
        "ready_s": spread(ready_s)._asdict(),
        "cpu_s_until_ready": spread(used_s)._asdict(),
        **found,
    }


def main() -> None:
    """Measure, print the table, write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", default="20,100,2000", help="symbols, by comma")
    parser.add_argument(
        "--starts",
        type=int,
        default=3,
        help=f"on an empty history, up to {_MAX_REPEATED_SYMBOLS} symbols",
    )
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(*_PACKAGES), "sizes": {}}
    print_machine(report["machine"])
    for symbols in map(int, args.sizes.split(",")):
        with (
            tempfile.TemporaryDirectory() as folder,
            exchange(Path(folder), symbols, HISTORY) as market,
        ):
            starts = args.starts if symbols <= _MAX_REPEATED_SYMBOLS else 1
            report["sizes"][symbols] = measure(market, starts, Path(folder))
    head = ("symbols", "ready after, s", "longest", "processor s", "restart, s", "resident MB")
    print_table(
        (*head, "when ready", "private"),
        (
            (
                symbols,
                found["ready_s"]["p50"],
                found["ready_s"]["max"],
                found["cpu_s_until_ready"]["p50"],
                found["restart_s"],
                *(found[name] for name in ("rss_mb", "rss_mb_when_ready", "private_mb")),
            )
            for symbols, found in report["sizes"].items()
        ),
    )
    save("startup", report)


if __name__ == "__main__":
    main()
