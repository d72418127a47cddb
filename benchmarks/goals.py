"""Compare the measured results with the performance goals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from benchmarks.harness.pipeline_run import BUSY, DAEMON, QUIET
from benchmarks.report import number, table

Result = dict[str, Any]


class Goal(NamedTuple):
    """A bound on one number of a result.

    Attributes:
        name: description of the number.
        bound: sign, number and unit, such as ``≤ 3 ms``.
        source: the result that the number is read from.
        value: reads the number; raises KeyError if it was not measured.
    """

    name: str
    bound: str
    source: str
    value: Callable[[Result], float]


def _symbols(n: int) -> str:
    return f"{n:,} symbol" if n == 1 else f"{n:,} symbols"


def _p99(symbols: int, daemon: str = "ours", load: str = QUIET) -> Callable[[Result], float]:
    return lambda of: float(of[load][str(symbols)][daemon]["message_ms"]["p99"])


def _ratio(symbols: int, above: str, below: str, load: str = QUIET) -> Callable[[Result], float]:
    return lambda of: _p99(symbols, above, load)(of) / _p99(symbols, below, load)(of)


def fastest_other(row: Result) -> tuple[str, float]:
    """Name and median (ms) of the fastest engine that is not ours and gives the same outputs."""
    medians = {
        name: found["p50"]
        for name, found in row.items()
        if isinstance(found, dict) and not name.startswith("our ") and "bf16" not in name
    }
    name = min(medians, key=lambda one: medians[one])
    return name, medians[name]


def _faster(windows: int) -> Callable[[Result], float]:
    def value(of: Result) -> float:
        row = of["ms"][str(windows)]
        return fastest_other(row)[1] / float(row["our step, 1"]["p50"])

    return value


def _path_us(of: Result) -> float:
    stages = of[QUIET]["1000"]["ours"]["stage_us_per_candle"]
    return float(stages["features"] + stages["inference"] + stages["encode"])


def _cpu_us(symbols: int) -> Callable[[Result], float]:
    return lambda of: float(of[QUIET][str(symbols)]["ours"]["cpu_us_a_candle"][DAEMON])


def _late(symbols: int, load: str = QUIET) -> Callable[[Result], float]:
    return lambda of: float(of[load][str(symbols)]["ours"]["late"])


def _retrain_ratio(of: Result) -> float:
    return float(of["message_ms_p99_ratio"])


def _rss_mb(symbols: int) -> Callable[[Result], float]:
    return lambda of: float(of["sizes"][str(symbols)]["rss_mb"])


def _ready_s(of: Result) -> float:
    return float(of["sizes"]["20"]["ready_s"]["p50"])


def _received_us(of: Result) -> float:
    return float(of["us_per_candle"]["our whole receive path"]["p50"])


def _published_us(of: Result) -> float:
    return float(of["clients"]["daemon/mqtt/publisher.py"]["cpu_us_per_message"]["p50"])


GOALS: Final = (
    Goal("step at 1 window, against the fastest other engine", "≥ 3 ×", "engine", _faster(1)),
    Goal("step at 1,024 windows, against it", "≥ 40 ×", "engine", _faster(1_024)),
    *(
        Goal(f"close to subscriber, p99, {_symbols(n)}", f"≤ {limit} ms", "pipeline", _p99(n))
        for n, limit in ((1, 3), (1_000, 50), (2_000, 100))
    ),
    *(
        Goal(
            f"straightforward daemon ÷ candlecast, p99, {_symbols(n)}, {load}",
            "≥ 10 ×",
            "pipeline",
            _ratio(n, "straightforward", "ours", load),
        )
        for load in (QUIET, BUSY)
        for n in (1, 200, 1_000, 2_000)
    ),
    *(
        Goal(
            f"candlecast ÷ constant, p99, {_symbols(n)}, {load}",
            f"≤ {limit} ×",
            "pipeline",
            _ratio(n, "ours", "constant", load),
        )
        for load, bounds in (
            (QUIET, ((1, 1.5), (200, 1.15), (1_000, 1.15), (2_000, 1.15))),
            (BUSY, ((200, 1.15), (1_000, 1.15), (2_000, 1.15))),
        )
        for n, limit in bounds
    ),
    Goal("features, inference, encode, 1,000 symbols", "≤ 10 µs a candle", "pipeline", _path_us),
    *(
        Goal(
            f"processor time of all threads, {_symbols(n)}",
            "≤ 70 µs a candle",
            "pipeline",
            _cpu_us(n),
        )
        for n in (1_000, 2_000)
    ),
    *(
        Goal(
            f"forecasts later than 50 ms, {_symbols(n)}, {load}",
            "≤ 0 of all",
            "pipeline",
            _late(n, load),
        )
        for n, load in ((1_000, QUIET), (2_000, QUIET), (2_000, BUSY))
    ),
    Goal("receive path of a closing candle", "≤ 15 µs", "receive", _received_us),
    Goal("publishing with its acknowledgement", "≤ 30 µs a message", "publishers", _published_us),
    Goal("p99 beside a training ÷ without, 200 symbols", "≤ 1.2 ×", "beside", _retrain_ratio),
    Goal("start to ready, 20 symbols", "≤ 2 s", "startup", _ready_s),
    Goal("resident memory, 100 symbols", "≤ 220 MB", "startup", _rss_mb(100)),
    Goal("resident memory, 2,000 symbols", "≤ 450 MB", "startup", _rss_mb(2_000)),
)


def goals(results: dict[str, Result]) -> str:
    """A Markdown table of all goals with the available results, by name of the result."""
    return table(("", "goal", "measured", "reached"), (_row(goal, results) for goal in GOALS))


def _row(goal: Goal, results: dict[str, Result]) -> tuple[str, str, str, str]:
    sign, limit, unit = goal.bound.split(" ", 2)
    try:
        value = goal.value(results[goal.source])
    except KeyError:
        return goal.name, goal.bound, "–", "not measured"
    reached = value <= float(limit) if sign == "≤" else value >= float(limit)
    return goal.name, goal.bound, f"{number(value)} {unit}", "yes" if reached else "**no**"
