"""Print and save the results of a benchmark: a table, a JSON file, the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.harness import load

RESULTS_VARIABLE: Final = "CANDLECAST_BENCHMARK_RESULTS"
RESULTS: Final = Path(os.environ.get(RESULTS_VARIABLE, Path(__file__).parent / "results"))


DOCS_WIDTH: Final = 132
"""Characters of a line of the documentation."""

_AT_START: Final = load.usage()
"""Every benchmark is a process of its own, which begins with the imports."""


class Spread(NamedTuple):
    """Median, 99th percentile and maximum of repeated measurements."""

    p50: float
    p99: float
    max: float


def spread(values: Iterable[float]) -> Spread:
    """Summarize measurements; NaN where there are none."""
    array = np.fromiter(values, np.float64)
    if not len(array):
        return Spread(np.nan, np.nan, np.nan)
    return Spread(*np.quantile(array, (0.5, 0.99, 1.0)).tolist())


def machine(*packages: str) -> dict[str, Any]:
    """Describe the machine: processor, load before the start, and versions of ``packages``."""
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
    }


def print_machine(of: dict[str, Any]) -> None:
    """Print the machine in one line, as a heading of the tables."""
    versions = ", ".join(f"{name} {number}" for name, number in of["versions"].items())
    print(f"{of['processor']}, {of['cpus']} CPUs, load {of['load']} at the start; {versions}\n")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    text = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *text, strict=True)]
    lines = (head, ["-" * width for width in widths], *text)
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print(table(head, rows) + "\n", flush=True)


def save(name: str, report: dict[str, Any]) -> None:
    """Write ``results/NAME.json``, with what other processes used since the start."""
    found = {
        "load_after": round(os.getloadavg()[0], 2),
        "cores_of_others": round(load.others(_AT_START, load.usage()), 3),
    }
    save_text(f"{name}.json", json.dumps({"load": found, **report}, indent=1) + "\n")


def save_text(name: str, text: str) -> None:
    """Write ``results/NAME``."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / name
    path.write_text(text, encoding="utf-8")
    print(f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


_SIGNIFICANT_DIGITS: Final = 3


def _cell(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """Format a measured number with three significant digits; NaN is a dash."""
    if np.isnan(value):
        return "–"
    # Digits before the decimal point are never rounded.
    decimals = max(0, _SIGNIFICANT_DIGITS - 1 - int(np.floor(np.log10(abs(value))))) if value else 0
    return f"{value:,.{min(decimals, 4)}f}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
