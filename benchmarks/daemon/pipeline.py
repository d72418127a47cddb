"""Measure the latency from the exchange's closing message to the subscriber.

    python -m benchmarks.daemon.pipeline                all sizes, some twenty minutes
    python -m benchmarks.daemon.pipeline --sizes 1,200 --bursts 10 --rounds 1

Exchange, broker, subscriber and daemon are separate processes on this machine. All symbols close in
the same instant, once a second; with few symbols more bursts are measured. The time starts when the
exchange begins to send the burst and ends, for each forecast, when the subscriber has read it. Each
size runs the daemons in turns, several rounds; each first alone and then beside a process that
keeps a third of a core busy. Metrics are scraped once a second, at varying distances from the
burst. The exchange encodes a burst before the time starts and sends it with one write for each
connection; the subscriber decodes messages after the run. What every process uses is measured.

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

from benchmarks.harness.pipeline_run import BUSY, DAEMONS, QUIET, Run, measure
from benchmarks.harness.processes import exchange
from benchmarks.harness.tiny_champion import HISTORY
from benchmarks.report import machine, print_machine, print_table, save, spread

_SLOW_SIZE: Final = 1_000
_MIN_FORECASTS: Final = 60
"""Forecasts of a daemon at each size and load, at least, if it runs in every round."""

_MAX_ERROR_CHARS: Final = 300
"""Characters of what a daemon that failed said last."""

_PACKAGES: Final = ("ccxt", "onnxruntime", "keras", "aiomqtt", "mqtt5", "uvloop", "orjson")


def summarize(runs: list[Run], symbols: int) -> dict[str, Any]:
    """Summarize the rounds of one daemon at one size."""
    bursts = sum(run.bursts for run in runs)
    return {
        "bursts": bursts,
        "message_ms": spread(np.concatenate([run.message_ms for run in runs]))._asdict(),
        "burst_end_ms": spread(np.concatenate([run.burst_end_ms for run in runs]))._asdict(),
        "missing": sum(run.missing for run in runs),
        "late": sum(run.late for run in runs),
        "payload_bytes": float(np.mean([run.payload_bytes for run in runs])),
        "cpu_us_a_candle": {
            role: 1e6 * sum(run.cpu_s[role] for run in runs) / (bursts * symbols)
            for role in runs[0].cpu_s
        },
        "rss_mb": max(run.rss_mb for run in runs),
        "where_ms": _mean([run.where_ms for run in runs]),
        "stage_us_per_candle": _mean([run.stage_us for run in runs]),
        "batch_size": float(np.mean([run.batch_size for run in runs])),
    }


def _mean(tables: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([table[key] for table in tables if table])) for key in tables[0]}


def measure_size(
    symbols: int, rounds: int, bursts: int, without: list[str], folder: Path
) -> dict[str, dict[str, Any]]:
    """Measure all daemons at one size, in turns, quiet and busy.

    Returns:
        Results by load and daemon; a daemon that failed has its error as result.
    """
    runs: dict[str, list[dict[str, Run]]] = defaultdict(list)
    failed: dict[str, str] = {}
    for number in range(rounds):
        for name, how in DAEMONS.items():
            elsewhere = how.only_at not in (None, symbols)
            if name in without or elsewhere or number >= how.most_rounds:
                continue
            place = folder / f"{name.replace('/', '-')}-{number}"
            place.mkdir()
            every = how.every_of_many if symbols >= _SLOW_SIZE else 1
            least = math.ceil(_MIN_FORECASTS / (symbols * rounds))
            counted = max(bursts if every == 1 else bursts // 2, least)
            try:
                with exchange(place, symbols, HISTORY, every) as market:
                    runs[name].append(measure(how, market, counted, place))
            except (AssertionError, OSError) as error:
                failed[name] = " ".join([str(error), *getattr(error, "__notes__", ())])[
                    -_MAX_ERROR_CHARS:
                ]
                print(f"{symbols} symbols, {name}: {failed[name]}", file=sys.stderr, flush=True)
    errors = {name: {"failed": why} for name, why in failed.items() if name not in runs}
    return {
        load: {name: summarize([run[load] for run in done], symbols) for name, done in runs.items()}
        | errors
        for load in (QUIET, BUSY)
    }


def print_size(symbols: int, load: str, daemons: dict[str, Any]) -> None:
    """Print the tables of one size and load."""
    measured = {name: row for name, row in daemons.items() if "failed" not in row}
    print(f"{symbols} symbols closing in the same instant, {load}\n")
    head = ("daemon", "p50 ms", "p99 ms", "max ms", "end p50", "end p99")
    print_table(
        (*head, "missing", "late", "bursts"),
        (
            (
                name,
                *row["message_ms"].values(),
                row["burst_end_ms"]["p50"],
                row["burst_end_ms"]["p99"],
                row["missing"],
                row["late"],
                row["bursts"],
            )
            for name, row in measured.items()
        ),
    )
    for title, key in (
        ("processor time, µs a candle", "cpu_us_a_candle"),
        ("where a forecast's time goes, mean ms", "where_ms"),
        ("stages, µs per candle", "stage_us_per_candle"),
    ):
        staged = {name: row for name, row in measured.items() if row[key]}
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
    parser.add_argument("--sizes", default="2000,1000,200,1", help="symbols, by comma")
    parser.add_argument("--bursts", type=int, default=11, help="of one round and load")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each daemon")
    parser.add_argument("--without", default="", help="daemons to leave out, by comma")
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(*_PACKAGES), QUIET: {}, BUSY: {}}
    print_machine(report["machine"])
    for symbols in map(int, args.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            found = measure_size(
                symbols, args.rounds, args.bursts, args.without.split(","), Path(folder)
            )
        for load, daemons in found.items():
            report[load][symbols] = daemons
            print_size(symbols, load, daemons)
        save("pipeline", report)


if __name__ == "__main__":
    main()
