"""Write the tables of `docs/performance.md` from the results of the benchmarks.

    python -m benchmarks.tables

The text between `<!-- NAME -->` and `<!-- end -->` is replaced if the results it is made from
exist, and kept otherwise. The flame graph is copied to `docs/burst.svg`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.capacity import capacity
from benchmarks.goals import fastest_other, goals
from benchmarks.pipeline_tables import cpu, pipeline, stages, where
from benchmarks.report import DOCS_WIDTH, RESULTS, RESULTS_VARIABLE, number, table

_DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
_BLOCK: Final = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MAX_QUIET_CORES: Final = 0.1
"""Cores that other processes may use on a machine that counts as quiet."""


Result = dict[str, Any]


def machine(of: Result) -> str:
    """The machine, in one line."""
    host = of["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    return f"{host['cpus']} CPUs ({host['processor']}), load {host['load']} before; {versions}."


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
    """Simulated days, and the sustained rate."""
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


def training(of: Result) -> str:
    """Processor time of the ways to train, and one whole run."""
    run = of["run"]
    rows = [
        (
            row["backend"],
            row["device"],
            row["way"],
            1e6 * row["epoch_cpu_s"] / row["epoch_windows"],
            "installed" if row["backend"] == run["backend"] else "",
        )
        for row in of["ways"]
    ]
    head = ("backend", "device", "way", "processor µs a window and epoch", "")
    whole = (
        f"A whole run over 45,000 windows on {run['backend']}: {run['epochs']} epochs, "
        f"{run['wall_s']:.0f} s, {run['cpu_s']:.0f} s of processor time."
    )
    return table(head, rows) + "\n\n" + whole


def night(of: Result) -> str:
    """Time and memory of a nightly training, by stage."""
    rows = [
        (name, stage["wall_s"] / 60, stage["cpu_s"] / 60, stage["peak_mb_so_far"])
        for name, stage in of["stages"].items()
    ]
    head = (f"{of['symbols']} symbols, {of['candles']:,} candles each", "minutes")
    text = f"{of['backend']}, {of['judged_forecasts']:,} forecasts judged."
    return table((*head, "processor minutes", "peak MB so far"), rows) + "\n\n" + text


TABLES: Final[dict[str, tuple[tuple[str, ...], Callable[..., str]]]] = {
    "machine": (("pipeline",), machine),
    "pipeline": (("pipeline",), pipeline),
    "cpu": (("pipeline", "receive"), cpu),
    "where": (("pipeline",), where),
    "stages": (("pipeline",), stages),
    "engine": (("engine",), engine),
    "publishers": (("publishers",), publishers),
    "receive": (("receive",), receive),
    "startup": (("startup",), startup),
    "capacity": (("pipeline", "receive", "soak"), capacity),
    "soak": (("soak",), soak),
    "swap": (("swap",), swap),
    "beside": (("beside",), beside),
    "training": (("training",), training),
    "night": (("night",), night),
}
"""By the name of the block: the results it is made from, and the function that formats them."""


def busy_note(results: dict[str, Result]) -> str:
    """A sentence about the results that were measured while other processes were busy."""
    cores = {name: of.get("load", {}).get("cores_of_others", 0.0) for name, of in results.items()}
    busy = [
        f"{100 * used:.0f} % of a core ({name})"
        for name, used in cores.items()
        if used > _MAX_QUIET_CORES
    ]
    if not busy:
        return ""
    text = f"Measured on a busy machine: other processes used {', '.join(busy)}."
    return "\n\n" + textwrap.fill(text, DOCS_WIDTH)


def fill(page: str, results: dict[str, Result]) -> str:
    """The page with a table for every block whose results exist."""

    def block(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name == "goals":
            return f"{begin}{goals(results)}{busy_note(results)}\n{end}"
        sources, render = TABLES[name]
        try:
            used = {source: results[source] for source in sources}
            return f"{begin}{render(*used.values())}{busy_note(used)}\n{end}"
        except LookupError as missing:
            print(f"{name}: kept, because there is no result of {missing}")
            return found[0]

    return _BLOCK.sub(block, page)


def main() -> None:
    """Write the tables into the page; those of other results into a copy beside them."""
    results = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")
    }
    page = fill((_DOCS / "performance.md").read_text(encoding="utf-8"), results)
    folder = RESULTS if RESULTS_VARIABLE in os.environ else _DOCS
    (folder / "performance.md").write_text(page, encoding="utf-8")
    if folder == _DOCS and (RESULTS / "burst.svg").exists():
        shutil.copy(RESULTS / "burst.svg", _DOCS / "burst.svg")


if __name__ == "__main__":
    main()
