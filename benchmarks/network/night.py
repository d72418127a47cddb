"""Measure a nightly training of many symbols: time, memory, and what they are spent on.

    python -m benchmarks.network.night                        200 symbols, 30 days of minutes
    python -m benchmarks.network.night --folder CANDLES       of recorded minutes
    python -m benchmarks.network.night --symbols 2 --days 20  a short run

It trains a challenger with the default configuration, exports it, and judges it against a champion,
as `candlecast retrain` does after it has completed the history. The candles are recorded ones,
repeated over symbols and time, each symbol from another row on, so that symbols are tested on rows
that others were trained on: the scores mean nothing. Without `--folder` they are the project's own
quarter hours, taken as minutes. One core, as the job uses by default.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.harness.candles import read_folder, read_sandbox
from benchmarks.report import machine, print_machine, print_table, save
from config.forecasting import Model
from config.retraining import Registry as RegistrySettings
from config.retraining import Retrain
from model.core.candle import Timeframe
from model.features.definitions import OHLCV
from model.registry.registry import Registry
from model.retraining.bundle_export import bundle_parts
from model.retraining.challenger import cut_for_gate, judge, train_challenger
from model.stats.promotion_gate import GateRules

if TYPE_CHECKING:
    import pandas as pd

_MINUTE: Final = Timeframe.parse("1m")
_FROM_MS: Final = 1_767_225_600_000
"""2026-01-01."""


def repeated(recorded: list[pd.DataFrame], symbols: int, rows: int) -> dict[str, pd.DataFrame]:
    """Candles of many symbols without gaps, from few recorded series.

    Args:
        recorded: the series.
        symbols: number of symbols.
        rows: candles of each.
    """
    import pandas as pd

    open_ms = _FROM_MS + np.arange(rows) * _MINUTE.ms
    found = {}
    for number in range(symbols):
        series = recorded[number % len(recorded)]
        ohlcv = series[list(OHLCV)].to_numpy(np.float64)
        chosen = (np.arange(rows) + 997 * number) % len(ohlcv)
        values = ohlcv[chosen]
        # Where the series starts over, its prices continue from the last close.
        change = np.where(chosen == 0, np.roll(values[:, 3], 1) / values[:, 0], 1.0)
        change[0] = 1.0
        values[:, :4] *= np.cumprod(change)[:, None]
        frame = pd.DataFrame(values, columns=list(OHLCV))
        frame.insert(0, "timestamp", open_ms)
        found[f"S{number}/USDT"] = frame.assign(datetime=pd.to_datetime(open_ms, unit="ms"))
    return found


class Stages:
    """Wall and processor seconds of named stages."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of a block."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.rows[name] = {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "peak_mb_so_far": peak_mb,
        }


def run(candles: dict[str, pd.DataFrame], folder: Path, settings: str) -> dict[str, Any]:
    """Train, export and judge; return the stages and what was trained."""
    config = folder / "config.yaml"
    config.write_text(settings, encoding="utf-8")
    rules, model = RegistrySettings(), Model()
    gate = GateRules(rules.gate_days, rules.margin)
    rows = len(next(iter(candles.values())))
    splits = model.train_split, model.val_split
    cut = cut_for_gate(rows, gate.candles(_MINUTE.ms), model.lookback_periods, *splits)
    stages, registry, output = Stages(), Registry(folder / "registry"), io.StringIO()
    with stages.measure("train and evaluate"), contextlib.redirect_stdout(output):
        trained = train_challenger(config, candles, _MINUTE, cut, folder, lambda: None)
    with stages.measure("export"):
        version = registry.write(bundle_parts(trained, folder, int(time.time() * 1e3)))
    with stages.measure("judge"):
        # Against itself, which costs as much as against another.
        bundle = registry.open(version)
        judged = judge(bundle, bundle, candles, gate, int(time.time() * 1e3), lambda *_: None)
    return {
        "symbols": len(candles),
        "candles": rows,
        # Keras also prints lines that begin with "Epoch" when it stops or lowers the rate.
        "epochs": len(re.findall(r"^Epoch \d+/\d+ ", output.getvalue(), re.MULTILINE)),
        "judged_forecasts": judged.decision.n,
        "stages": stages.rows,
        "wall_s": sum(stage["wall_s"] for stage in stages.rows.values()),
        "cpu_s": sum(stage["cpu_s"] for stage in stages.rows.values()),
        "peak_mb": max(stage["peak_mb_so_far"] for stage in stages.rows.values()),
    }


def main() -> None:
    """Measure one night and print and save its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, help="Parquet files of recorded minutes")
    parser.add_argument("--training", choices=("stretches", "windows"), default="stretches")
    args = parser.parse_args()
    host = machine("keras", "jax", "tensorflow", "numpy")
    print_machine(host)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: Retrain().threads])
    recorded = (
        [read_sandbox("15m")] if args.folder is None else [*read_folder(args.folder).values()]
    )
    candles = repeated(recorded, args.symbols, int(args.days * 86_400_000) // _MINUTE.ms)
    with tempfile.TemporaryDirectory() as folder:
        report = run(candles, Path(folder), f"model: {{training: {args.training}}}\n")
    keras = sys.modules["keras"]
    report |= {"machine": host, "backend": keras.backend.backend(), "training": args.training}
    print_table(
        ("stage", "minutes", "processor minutes", "peak MB so far"),
        (
            (name, stage["wall_s"] / 60, stage["cpu_s"] / 60, stage["peak_mb_so_far"])
            for name, stage in report["stages"].items()
        ),
    )
    print(
        f"{report['symbols']} symbols, {report['candles']} candles each, {report['backend']}: "
        f"{report['epochs']} epochs, {report['wall_s'] / 60:.1f} minutes, "
        f"{report['peak_mb']:.0f} MB, {report['judged_forecasts']} forecasts judged"
    )
    save("night", report)


if __name__ == "__main__":
    main()
