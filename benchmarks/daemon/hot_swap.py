"""Measure the latency of forecasts during a change of the model.

    python -m benchmarks.daemon.hot_swap
    python -m benchmarks.daemon.hot_swap --symbols 200 --swaps 10

Exchange, broker, subscriber and `candlecast run` are separate processes. All symbols close in the
same instant, once a second. From time to time, at any distance from a burst, another champion is
promoted. Bursts that closed between that moment and 0.2 s after the new model took over are
compared with all others of the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from benchmarks.harness.processes import (
    HOST,
    Exchange,
    exchange,
    free_port,
    mosquitto,
    python,
    rss_mb,
    running,
    stop,
)
from benchmarks.harness.scraper import wait_ready
from benchmarks.harness.tiny_champion import HISTORY, past, prepare, promote
from benchmarks.report import machine, print_machine, print_table, save, spread
from model.registry.registry import Registry

if TYPE_CHECKING:
    import subprocess

_WARM_UP_S: Final = 5.0
_SWAP_INTERVAL_S: Final = 3.37
_POLL_INTERVAL_S: Final = 0.05
_SWAP_TAIL_NS: Final = 200_000_000
_SWAP_TIMEOUT_S: Final = 60.0


class Swap(NamedTuple):
    """When a model was promoted and when it had taken over, monotonic nanoseconds."""

    asked_ns: int
    done_ns: int


def watch(folder: Path, market: Exchange, swaps: int) -> tuple[list[Swap], list[float]]:
    """Run the daemon with changing champions.

    Returns:
        When they changed, and the daemon's memory after each change, MB.
    """
    port = free_port()
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(mosquitto(folder)).port
        config = prepare(folder, market, broker, port)
        registry = Registry(folder / "state" / "registry")
        first = registry.champion()
        second = promote(folder / "state", market.symbols, past(market), seed=8)
        registry.promote(first)
        command = python("benchmarks.harness.subscriber", str(broker), str(folder / "received"))
        subscriber = stack.enter_context(running(*command, log=folder / "log"))
        assert subscriber.stdout is not None
        subscriber.stdout.readline()
        command = python("daemon", "run", "--config", str(config))
        daemon = stack.enter_context(running(*command, log=folder / "daemon.log"))
        wait_ready(port, daemon)
        time.sleep(_WARM_UP_S)
        seen, memory = [], []
        for number in range(swaps):
            seen.append(_swap(registry, (second, first)[number % 2], daemon, port))
            memory.append(rss_mb(daemon.pid))
            _poll_for(_SWAP_INTERVAL_S, port)
        stop(daemon)
        stop(subscriber)
    return seen, memory


def _swap(registry: Registry, version: str, daemon: subprocess.Popen[str], port: int) -> Swap:
    registry.promote(version)
    asked_ns = time.monotonic_ns()
    deadline_ns = asked_ns + int(_SWAP_TIMEOUT_S * 1e9)
    while _model(port) != version:
        assert daemon.poll() is None, "the daemon ended"
        assert time.monotonic_ns() < deadline_ns, "the model was not taken over"
        time.sleep(_POLL_INTERVAL_S)
    return Swap(asked_ns, time.monotonic_ns())


def _poll_for(seconds: float, port: int) -> None:
    """Poll as often as during a swap, to have the same load."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        _model(port)
        time.sleep(_POLL_INTERVAL_S)


def _model(port: int) -> str:
    with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=10) as answer:
        return str(json.load(answer)["model"])


def evaluate(received: Path, market: Exchange, swaps: list[Swap]) -> dict[str, Any]:
    """Latencies of bursts during a swap, and of the others."""
    groups: dict[str, list[tuple[float, float]]] = {"idle": [], "swap": []}
    forecasts: dict[int, set[str]] = {}
    starts = market.burst_starts()
    span = swaps[0].asked_ns, swaps[-1].done_ns
    for line in received.read_text(encoding="utf-8").splitlines():
        symbol, close_ms, arrived_ns, *_, ready, _, _ = line.split(",")
        began_ns = starts.get(int(close_ms), 0)
        if not span[0] < began_ns < span[1]:
            continue
        forecasts.setdefault(int(close_ms), set()).add(symbol)
        during = any(s.asked_ns < began_ns < s.done_ns + _SWAP_TAIL_NS for s in swaps)
        latency = (int(arrived_ns) - began_ns) / 1e6, float(ready)
        groups["swap" if during else "idle"].append(latency)
    report: dict[str, Any] = {
        "missing": sum(len(market.symbols) - len(heard) for heard in forecasts.values()),
        "swap_s": spread((s.done_ns - s.asked_ns) / 1e9 for s in swaps)._asdict(),
    }
    for name, latencies in groups.items():
        arrival, ready_ms = np.array(latencies).T
        report[name] = {
            "bursts": len(latencies) // len(market.symbols),
            "message_ms": spread(arrival)._asdict(),
            "ready_ms": spread(ready_ms)._asdict(),
        }
    idle, swap = (report[name]["ready_ms"]["p99"] for name in ("idle", "swap"))
    return report | {"ready_p99_ratio": swap / idle}


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--symbols", type=int, default=1_000)
    parser.add_argument("--swaps", type=int, default=12)
    args = parser.parse_args()
    of = machine("onnxruntime", "numpy", "uvloop")
    print_machine(of)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with exchange(folder, args.symbols, HISTORY) as market:
            swaps, memory = watch(folder, market, args.swaps)
            report = evaluate(folder / "received", market, swaps)
    head = ("bursts with", "bursts", "ready p50 ms", "ready p99 ms", "ready max ms")
    print_table(
        (*head, "arrived p99 ms", "arrived max ms"),
        (
            (
                name,
                row["bursts"],
                *row["ready_ms"].values(),
                *list(row["message_ms"].values())[1:],
            )
            for name, row in ((name, report[name]) for name in ("idle", "swap"))
        ),
    )
    print(
        f"p99 of the ready latency during a swap: {report['ready_p99_ratio']:.2f} of the idle one; "
        f"{report['missing']} forecasts missing; a swap took {report['swap_s']['p50']:.1f} s "
        f"(at most {report['swap_s']['max']:.1f} s); memory {memory[0]:.0f} MB after the first, "
        f"{memory[-1]:.0f} MB after the last"
    )
    save("swap", {"machine": of, "symbols": args.symbols, "memory_mb": memory, **report})


if __name__ == "__main__":
    main()
