"""Measure one forward pass of the reference network with our engine and with others.

    python -m benchmarks.network.engine
    python -m benchmarks.network.engine --sizes 1,1024 --rounds 5

Every engine has the same weights and must give the same outputs within 2e-5. bf16 does not (some
2e-3), so it is shown but not compared. Each engine runs in its own process, because threads can be
chosen only once per process; they take turns, size by size, round by round. `1` after a name is one
thread, `all` the engine's default.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from benchmarks.goals import fastest_other
from benchmarks.report import machine, print_machine, print_table, save, spread

_STEP: Final = "our step, 1"
_OURS: Final = (_STEP, "our full window, 1")
_TOLERANCE: Final = 2e-5
_INEXACT: Final = "bf16"
_BUDGET_S: Final = 0.4
"""An engine repeats within a round for so long, at least three times."""

PROCESSES: Final = {
    "ours": _OURS,
    "tensorflow 1": ("predict, 1", "model(x), 1", "tf.function, 1", "XLA, 1"),
    "tensorflow all": ("predict, all", "model(x), all", "tf.function, all", "XLA, all"),
    "onnxruntime": ("ONNX Runtime, 1", "ONNX Runtime, all"),
    "openvino": ("OpenVINO, 1", "OpenVINO, all", "OpenVINO bf16, 1", "OpenVINO bf16, all"),
    "litert": ("LiteRT, 1", "LiteRT, all"),
}


class Process:
    """A child process with one family of engines; a context manager."""

    def __init__(self, family: str) -> None:
        self.family = family
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        self._child = subprocess.Popen(  # noqa: S603 - this very project
            [sys.executable, "-m", "benchmarks.network.engine_workers", family],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Self:
        """Return the process, which has started already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child by ending its input."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(60)

    def ask(self, engine: str, windows: int) -> dict[str, Any]:
        """Request some passes; returns seconds and outputs, or an error."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            request = {"engine": engine, "windows": windows, "budget_s": _BUDGET_S}
            print(json.dumps(request), file=self._child.stdin, flush=True)
            answer = self._child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        return dict(json.loads(answer)) if answer else {"error": "its process ended"}


def measure(sizes: list[int], rounds: int) -> dict[int, dict[str, Any]]:
    """Seconds of every engine at every size, or its error."""
    table: dict[int, dict[str, Any]] = {}
    processes = [Process(family) for family in PROCESSES]
    try:
        for windows in sizes:
            row: dict[str, Any] = {}
            for number in range(rounds):
                for process in processes:
                    for engine in PROCESSES[process.family]:
                        _note(row, engine, process.ask(engine, windows), number)
            table[windows] = row
            print(f"measured {windows} windows", file=sys.stderr, flush=True)
    finally:
        for process in processes:
            process.__exit__()
    return table


def _note(row: dict[str, Any], engine: str, answer: dict[str, Any], number: int) -> None:
    if "error" in answer:
        row[engine] = answer["error"]
        return
    outputs = row.setdefault("outputs", answer["outputs"])
    off = float(np.max(np.abs(np.subtract(outputs, answer["outputs"]))))
    assert off < _TOLERANCE or _INEXACT in engine, f"{engine} is off by {off}"
    row[engine] = answer["seconds"] if number == 0 else row[engine] + answer["seconds"]


def main() -> None:
    """Measure, print the table, write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", default="1,32,256,1024,4096", help="windows, by comma")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each engine")
    args = parser.parse_args()
    packages = ("keras", "tensorflow", "onnxruntime", "openvino", "ai-edge-litert", "numpy")
    report: dict[str, Any] = {"machine": machine(*packages)}
    print_machine(report["machine"])
    sizes = [int(size) for size in args.sizes.split(",")]
    table = measure(sizes, args.rounds)
    engines = [engine for family in PROCESSES.values() for engine in family]
    report["ms"] = {}
    for windows, row in table.items():
        row.pop("outputs", None)
        report["ms"][windows] = {
            name: found if isinstance(found, str) else spread(1e3 * np.array(found))._asdict()
            for name, found in row.items()
        }
    print_table(
        ("median / p99, ms", *map(str, sizes)),
        ((engine, *(_cell(report["ms"][n].get(engine)) for n in sizes)) for engine in engines),
    )
    print_table(
        ("how many times faster our step is", *map(str, sizes)),
        (("than the fastest other engine", *(_times(report["ms"][n]) for n in sizes)),),
    )
    save("engine", report)


def _cell(found: object) -> str:
    if not isinstance(found, dict):
        return str(found)
    return f"{found['p50']:.3g} / {found['p99']:.3g}"


def _times(row: dict[str, Any]) -> str:
    name, fastest_ms = fastest_other(row)
    return f"{fastest_ms / row[_STEP]['p50']:.1f} ({name})"


if __name__ == "__main__":
    main()
