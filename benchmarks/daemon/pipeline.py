"""Measure the latency from the exchange's closing message to the subscriber.

    python -m benchmarks.daemon.pipeline                all sizes, some half an hour
    python -m benchmarks.daemon.pipeline --sizes 1,200 --bursts 10 --rounds 1

Exchange, broker, subscriber and daemon are separate processes on this machine. All symbols close in
the same instant, once a second; with few symbols more bursts are measured. The time starts when the
exchange begins to send the burst and ends, for each forecast, when the subscriber has read it. Each
size runs the daemons in turns, several rounds. Metrics are scraped once a second, at varying
distances from the burst.

ours             `candlecast run`
constant         the same with a constant in place of the model, as a lower bound
straightforward  ccxt `watch_ohlcv`, TA-Lib, `keras.Model.predict`, awaited aiomqtt publishes;
                 from 1,000 symbols up a burst every three seconds, because it needs more than one
ours/defaults    `candlecast run` on a Mosquitto with its default limits, only at 1,000 symbols
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.harness.pipeline_run import DAEMONS, Run, measure
from benchmarks.harness.processes import exchange
from benchmarks.harness.tiny_champion import HISTORY
from benchmarks.report import machine, print_machine, print_table, save, spread

_MANY: Final = 1_000
_MEASURED: Final = 120
"""Forecasts of a daemon at each size, at least: the 99th percentile of fewer is the longest."""

_SAID: Final = 300
"""Characters of what a daemon that failed said last."""

_PACKAGES: Final = ("ccxt", "onnxruntime", "keras", "aiomqtt", "mqtt5", "uvloop", "orjson")


def summarize(runs: list[Run]) -> dict[str, Any]:
    """The rounds of one daemon at one size, taken together."""
    bursts = sum(run.bursts for run in runs)
    return {
        "bursts": bursts,
        "message_ms": spread(np.concatenate([run.message_ms for run in runs]))._asdict(),
        "burst_end_ms": spread(np.concatenate([run.burst_end_ms for run in runs]))._asdict(),
        "missing": sum(run.missing for run in runs),
        "late": sum(run.late for run in runs),
        "payload_bytes": float(np.mean([run.payload_bytes for run in runs])),
        "cpu_ms_per_burst": 1e3 * sum(run.cpu_s for run in runs) / bursts,
        "loop_cpu_ms_per_burst": 1e3 * sum(run.loop_cpu_s for run in runs) / bursts,
        "where_ms": _mean([run.where_ms for run in runs]),
        "stage_us_per_candle": _mean([run.stage_us for run in runs]),
        "batch_size": float(np.mean([run.batch_size for run in runs])),
    }


def _mean(tables: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([table[key] for table in tables if table])) for key in tables[0]}


def measure_size(
    symbols: int, rounds: int, bursts: int, without: list[str], folder: Path
) -> dict[str, Any]:
    """All daemons at one size, in turns; one that fails says why in its place."""
    runs: dict[str, list[Run]] = defaultdict(list)
    failed: dict[str, str] = {}
    for number in range(rounds):
        for name, how in DAEMONS.items():
            elsewhere = how.only_at not in (None, symbols)
            if name in without or elsewhere or number >= how.most_rounds:
                continue
            place = folder / f"{name.replace('/', '-')}-{number}"
            place.mkdir()
            every = how.every_of_many if symbols >= _MANY else 1
            least = math.ceil(_MEASURED / (symbols * min(rounds, how.most_rounds)))
            counted = max(bursts if every == 1 else bursts // 2, least)
            try:
                with exchange(place, symbols, HISTORY, every) as market:
                    runs[name].append(measure(how, market, counted, place))
            except (AssertionError, OSError) as error:
                failed[name] = " ".join([str(error), *getattr(error, "__notes__", ())])[-_SAID:]
                print(f"{symbols} symbols, {name}: {failed[name]}", file=sys.stderr, flush=True)
    return {name: summarize(done) for name, done in runs.items()} | {
        name: {"failed": why} for name, why in failed.items() if name not in runs
    }


def print_size(symbols: int, daemons: dict[str, Any]) -> None:
    """The tables of one size."""
    measured = {name: row for name, row in daemons.items() if "failed" not in row}
    print(f"{symbols} symbols closing in the same instant\n")
    head = ("daemon", "p50 ms", "p99 ms", "max ms", "end p50", "end p99", "CPU ms a burst")
    print_table(
        (*head, "of it loop", "missing", "late", "bursts"),
        (
            (
                name,
                *row["message_ms"].values(),
                row["burst_end_ms"]["p50"],
                row["burst_end_ms"]["p99"],
                row["cpu_ms_per_burst"],
                row["loop_cpu_ms_per_burst"],
                row["missing"],
                row["late"],
                row["bursts"],
            )
            for name, row in measured.items()
        ),
    )
    staged = {name: row for name, row in measured.items() if row["where_ms"]}
    for title, key in (
        ("where a forecast's time goes, mean ms", "where_ms"),
        ("stages, µs per candle", "stage_us_per_candle"),
    ):
        columns = list(next(iter(staged.values()))[key]) if staged else []
        if columns:
            print_table(
                (title, *columns),
                ((name, *(row[key][c] for c in columns)) for name, row in staged.items()),
            )


def main() -> None:
    """Measure, print the tables, write them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", default="1,20,200,1000,2000", help="symbols, by comma")
    parser.add_argument("--bursts", type=int, default=30, help="of one round")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each daemon")
    parser.add_argument("--without", default="", help="daemons to leave out, by comma")
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(*_PACKAGES), "sizes": {}}
    print_machine(report["machine"])
    for symbols in map(int, args.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            found = measure_size(
                symbols, args.rounds, args.bursts, args.without.split(","), Path(folder)
            )
        report["sizes"][symbols] = found
        print_size(symbols, found)
        save("pipeline", report)


if __name__ == "__main__":
    main()
