"""Write the tables of `docs/performance.md` from the results of the benchmarks.

    python -m benchmarks.tables

The text between `<!-- NAME -->` and `<!-- end -->` is replaced if the result of that benchmark
exists, and kept otherwise. The flame graph is copied to `docs/burst.svg`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.goals import fastest_other, goals
from benchmarks.report import RESULTS, number, table

_DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
_BLOCK: Final = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_OURS: Final = "ours"

Result = dict[str, Any]


def _sizes(of: Result) -> Iterator[tuple[str, dict[str, Any]]]:
    for symbols, daemons in of["sizes"].items():
        yield f"{int(symbols):,}", {n: row for n, row in daemons.items() if "failed" not in row}


def machine(of: Result) -> str:
    """The machine, in one line."""
    host = of["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    return f"{host['cpus']} CPUs ({host['processor']}), load {host['load']} before; {versions}."


def pipeline(of: Result) -> str:
    """Latencies of all daemons at all sizes."""
    head = ("symbols", "daemon", "p50 ms", "p99 ms", "longest", "last of a burst, p50", "p99")
    return table(
        (*head, "p99 against candlecast", "late", "missing", "bursts"),
        (
            (
                symbols,
                "candlecast" if name == _OURS else name.replace("ours/", "candlecast, "),
                *row["message_ms"].values(),
                row["burst_end_ms"]["p50"],
                row["burst_end_ms"]["p99"],
                _against(row, daemons) if name != _OURS else "",
                row["late"] if row["where_ms"] else "–",
                row["missing"],
                row["bursts"],
            )
            for symbols, daemons in _sizes(of)
            for name, row in daemons.items()
        ),
    )


def _against(row: Result, daemons: dict[str, Any]) -> str:
    if _OURS not in daemons:
        return "–"
    return f"{row['message_ms']['p99'] / daemons[_OURS]['message_ms']['p99']:.2f} ×"


def _ours(of: Result) -> list[tuple[str, dict[str, Any]]]:
    return [(symbols, daemons[_OURS]) for symbols, daemons in _sizes(of) if _OURS in daemons]


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
                1e3 * row["loop_cpu_ms_per_burst"] / int(symbols.replace(",", "")),
                1e3 * row["cpu_ms_per_burst"] / int(symbols.replace(",", "")),
                row["batch_size"],
            )
            for symbols, row in found
        ),
    )


def engine(of: Result) -> str:
    """All engines at all sizes."""
    sizes = of["ms"]
    names = list(dict.fromkeys(name for row in sizes.values() for name in row))
    rows = [(name, *(_spread(row.get(name)) for row in sizes.values())) for name in names]
    faster = ("our step against the fastest other", *map(_times, sizes.values()))
    return table(("engine, threads", *(f"{int(size):,}" for size in sizes)), [*rows, faster])


def _times(row: Result) -> str:
    name, fastest_ms = fastest_other(row)
    return f"{fastest_ms / row['our step, 1']['p50']:.1f} × ({name})"


def _spread(found: object) -> str:
    if not isinstance(found, dict):
        return str(found)
    return f"{number(found['p50'])} / {number(found['p99'])}"


def publishers(of: Result) -> str:
    """All MQTT clients."""
    return table(
        ("client", "µs a message", "last acknowledgement ms", "sees a denied publish"),
        (
            (
                "candlecast" if name.startswith("daemon/") else name,
                row["cpu_us_per_message"]["p50"],
                row["last_ack_ms"]["p50"],
                row["sees_denial"],
            )
            for name, row in of["clients"].items()
        ),
    )


def receive(of: Result) -> str:
    """Processor time of receiving a closing candle."""
    return table(
        ("µs a closing candle", "p50", "p99"),
        ((name, row["p50"], row["p99"]) for name, row in of["us_per_candle"].items()),
    )


def startup(of: Result) -> str:
    """Start and memory."""
    head = ("symbols", "ready after, s", "longest of", "processor s", "restart, s", "resident MB")
    return table(
        (*head, "of it private"),
        (
            (
                f"{int(symbols):,}",
                row["ready_s"]["p50"],
                f"{row['ready_s']['max']:.2f} of {row['starts']}",
                row["cpu_s_until_ready"]["p50"],
                row["restart_s"],
                row["rss_mb"],
                row["private_mb"],
            )
            for symbols, row in of["sizes"].items()
        ),
    )


def soak(of: Result) -> str:
    """A simulated week, and the sustained rate."""
    days, most = of["days"], of["sustained"]
    least, greatest = days["descriptors"]
    rows = (
        ("candles", f"{days['symbols']} symbols × {days['days']:.0f} days of minutes"),
        ("took", f"{days['took_s']:.0f} s"),
        ("resident MB", " → ".join(f"{mb:.0f}" for mb in days["rss_mb"].values())),
        (
            "slope of the second half",
            f"{days['rss_mb_a_day']:+.2f} ± {days['rss_mb_a_day_error']:.2f} MB a day",
        ),
        ("tasks", "{} to {}".format(*days["tasks"])),
        ("open descriptors", f"{least} to {greatest}"),
        ("history rows lost", f"{days['account']['history rows lost']:.0f}"),
        (
            f"sustained at {most['symbols']:,} symbols",
            f"{most['candles_a_second']:,.0f} candles a second",
        ),
        ("processor, all threads", f"{most['cpu_us_a_candle']:.0f} µs a candle"),
    )
    return table(("", ""), rows)


def swap(of: Result) -> str:
    """Latency during a change of the model."""
    return table(
        ("bursts", "of them", "ready p50 ms", "p99", "received p99 ms"),
        (
            (
                what,
                row["bursts"],
                row["ready_ms"]["p50"],
                row["ready_ms"]["p99"],
                row["message_ms"]["p99"],
            )
            for what, row in (
                ("without a change", of["idle"]),
                ("during one", of["swap"]),
            )
        ),
    )


def beside(of: Result) -> str:
    """Latency during the nightly training."""
    return table(
        ("retrain", "bursts", "p50 ms", "p99 ms", "ready p99 ms"),
        (
            (
                what,
                row["bursts"],
                row["message_ms"]["p50"],
                row["message_ms"]["p99"],
                row["ready_ms"]["p99"],
            )
            for what, row in of.items()
            if what.startswith("while ")
        ),
    )


TABLES: Final[dict[str, tuple[str, Callable[[Result], str]]]] = {
    "machine": ("pipeline", machine),
    "pipeline": ("pipeline", pipeline),
    "where": ("pipeline", where),
    "stages": ("pipeline", stages),
    "engine": ("engine", engine),
    "publishers": ("publishers", publishers),
    "receive": ("receive", receive),
    "startup": ("startup", startup),
    "soak": ("soak", soak),
    "swap": ("swap", swap),
    "beside": ("beside", beside),
}
"""By the name of the block: the result it is made from, and the function that formats it."""


def main() -> None:
    """Write the tables into the page."""
    results = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")
    }

    def block(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name == "goals":
            return f"{begin}{goals(results)}\n{end}"
        source, render = TABLES[name]
        try:
            return f"{begin}{render(results[source])}\n{end}"
        except LookupError:
            print(f"{name}: kept, because there is no result of python -m benchmarks {source}")
            return found[0]

    page = _DOCS / "performance.md"
    page.write_text(_BLOCK.sub(block, page.read_text(encoding="utf-8")), encoding="utf-8")
    if (RESULTS / "burst.svg").exists():
        shutil.copy(RESULTS / "burst.svg", _DOCS / "burst.svg")


if __name__ == "__main__":
    main()
