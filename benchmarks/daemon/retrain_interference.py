"""Measure how much the nightly training delays the forecasts of a daemon beside it.

    python -m benchmarks.daemon.retrain_interference
    python -m benchmarks.daemon.retrain_interference --symbols 20 --pairs 3

Exchange, broker, subscriber and `candlecast run` are separate processes. All symbols close in the
same instant, once a second. `candlecast retrain`, with its default settings, reads and extends the
same history and trains on 20 of the symbols. As soon as it trains, it is stopped and continued in
turns of ten seconds, so both figures are from the same minutes. The time while it starts and
fetches is reported too. p99 is about the worst burst in a hundred, so few pairs give an uncertain
p99.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import yaml

from benchmarks.harness.processes import (
    Exchange,
    exchange,
    free_port,
    mosquitto,
    python,
    running,
    stop,
)
from benchmarks.harness.scraper import wait_ready
from benchmarks.harness.tiny_champion import prepare
from benchmarks.report import machine, print_machine, print_table, save, spread

_WARM_UP_S: Final = 5.0
_TURN_S: Final = 10.0
_TRAINING_TIMEOUT_S: Final = 300.0
_TRAINED_SYMBOLS: Final = 20
_HISTORY: Final = 6_000
_DAY_S: Final = 86_400
IDLE: Final = "while it is stopped"
STARTING: Final = "while it starts and fetches"
TRAINING: Final = "while it trains"
_RETRAIN: Final[dict[str, dict[str, Any]]] = {
    # Long enough for all turns: training stops early after some epochs without improvement.
    "model": {"epochs": 10_000},
    "registry": {"gate_days": 600 / _DAY_S},
    "retrain": {"days": 5_000 / _DAY_S},
}


class Turn(NamedTuple):
    """A span with one state of the training, monotonic nanoseconds."""

    what: str
    began_ns: int
    ended_ns: int


def watch(folder: Path, market: Exchange, pairs: int) -> list[Turn]:
    """Run the daemon and the training beside it; returns the spans and their states."""
    http_port = free_port()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(mosquitto(folder)).port
        config = prepare(folder, market, port, http_port)
        command = python("benchmarks.harness.subscriber", str(port), str(folder / "received"))
        subscriber = stack.enter_context(running(*command, log=folder / "log"))
        assert subscriber.stdout is not None
        subscriber.stdout.readline()
        command = python("daemon", "run", "--config", str(config))
        daemon = stack.enter_context(running(*command, log=folder / "daemon.log"))
        wait_ready(http_port, daemon)
        time.sleep(_WARM_UP_S)
        turns = [_turn(IDLE)]
        command = python("daemon", "retrain", "--config", str(_training_config(config)))
        log = folder / "night.log"
        # The output is not read, and a full pipe would block the training.
        night = stack.enter_context(running(*command, log=log, output=subprocess.DEVNULL))
        turns.append(_started(night, folder / "state", log))
        for _ in range(pairs):
            os.kill(night.pid, signal.SIGSTOP)
            turns.append(_turn(IDLE))
            os.kill(night.pid, signal.SIGCONT)
            turns.append(_turn(TRAINING))
            assert night.poll() is None, log.read_text(encoding="utf-8")
        night.kill()
        stop(daemon)
        stop(subscriber)
    return turns


def _training_config(config: Path) -> Path:
    """Write the configuration of the training: the daemon's, with some of its symbols."""
    sections = yaml.safe_load(config.read_text(encoding="utf-8"))
    sections["trading"]["symbols"] = sections["trading"]["symbols"][:_TRAINED_SYMBOLS]
    path = config.with_name("night.yaml")
    path.write_text(yaml.safe_dump(sections | _RETRAIN), encoding="utf-8")
    return path


def _turn(what: str) -> Turn:
    began_ns = time.monotonic_ns()
    time.sleep(_TURN_S)
    return Turn(what, began_ns, time.monotonic_ns())


def _started(night: subprocess.Popen[str], state: Path, log: Path) -> Turn:
    """Wait until the first epoch is done."""
    began_ns = time.monotonic_ns()
    deadline = time.monotonic() + _TRAINING_TIMEOUT_S
    while not (state / "retrain" / "resume" / "standing.json").exists():
        assert night.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, "the training did not begin"
        time.sleep(0.1)
    return Turn(STARTING, began_ns, time.monotonic_ns())


def evaluate(received: Path, market: Exchange, turns: list[Turn]) -> dict[str, Any]:
    """Latencies by the state of the training when their burst began."""
    starts = market.burst_starts()
    arrival_ms: dict[str, list[float]] = defaultdict(list)
    ready_ms: dict[str, list[float]] = defaultdict(list)
    bursts: dict[str, set[str]] = defaultdict(set)
    for line in received.read_text(encoding="utf-8").splitlines():
        _, close_ms, arrived_ns, *_, ready, _, _ = line.split(",")
        began_ns = starts.get(int(close_ms), 0)
        for what, from_ns, until_ns in turns:
            if from_ns < began_ns < until_ns:
                arrival_ms[what].append((int(arrived_ns) - began_ns) / 1e6)
                ready_ms[what].append(float(ready))
                bursts[what].add(close_ms)
    report: dict[str, Any] = {
        what: {
            "bursts": len(bursts[what]),
            "missing": len(bursts[what]) * len(market.symbols) - len(arrival_ms[what]),
            "message_ms": spread(arrival_ms[what])._asdict(),
            "ready_ms": spread(ready_ms[what])._asdict(),
        }
        for what in (IDLE, STARTING, TRAINING)
    }
    for name in ("message_ms", "ready_ms"):
        idle, training = (report[what][name]["p99"] for what in (IDLE, TRAINING))
        report[f"{name}_p99_ratio"] = float(np.divide(training, idle))
    return report


def main() -> None:
    """Measure, print the table, write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--symbols", type=int, default=200, help="closing at once")
    parser.add_argument("--pairs", type=int, default=5, help="turns of ten seconds, of each")
    args = parser.parse_args()
    of = machine("tensorflow", "keras", "onnxruntime", "numpy")
    print_machine(of)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with exchange(folder, args.symbols, _HISTORY) as market:
            turns = watch(folder, market, args.pairs)
            report = evaluate(folder / "received", market, turns)
    rows = {what: row for what, row in report.items() if isinstance(row, dict)}
    print_table(
        (f"retrain beside {args.symbols} symbols", "bursts", "p50 ms", "p99 ms", "ready p99 ms"),
        (
            (
                what,
                row["bursts"],
                row["message_ms"]["p50"],
                row["message_ms"]["p99"],
                row["ready_ms"]["p99"],
            )
            for what, row in rows.items()
        ),
    )
    save("beside", {"machine": of, "symbols": args.symbols, **report})


if __name__ == "__main__":
    main()
