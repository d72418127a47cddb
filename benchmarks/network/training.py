"""Measure what training costs, and whether speed costs validation loss.

    python -m benchmarks.network.training                  processor time of each way to train
    python -m benchmarks.network.training --seeds 5        and whole runs of each, over seeds
    python -m benchmarks.network.training --folder CANDLES of recorded minutes

*Windows* is `LSTMPricePredictor.train` with `model.training: windows`, *stretches* the default, and
*fit* plain `keras.Model.fit` on the same arrays. 45,000 windows of 60x6 are trained on and 9,640
validated. Whole runs stop early, as in the configuration, and their validation loss is that of the
best weights on exact windows. *Range* is the next candle's log range in place of its return: unlike
the return it can be forecast, so that a worse training shows.

Each run is a process of its own, so that its processor time includes imports and compilation. The
ways take turns. A run uses the GPU if the backend sees one; the report names the device of each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.harness.candles import read_folder, read_sandbox
from benchmarks.report import machine, print_machine, print_table, save
from config.forecasting import Model
from model.features.sliding_windows import Windows
from model.lstm_model import LSTMPricePredictor
from model.preprocess import DataPreprocessor
from model.training.batching import training_batches

_LOOKBACK: Final = 60
_TRAINED: Final = 45_000
_VALIDATED: Final = 9_640
_COMPARED: Final = 30_000
"""Windows of the whole runs over seeds, of which those over windows take minutes each."""

_LOSSES: Final = {"range": "mse", "log_return": "mae"}
_WAYS: Final = ("stretches", "windows", "fit")


@dataclass(frozen=True)
class Run:
    """What a process trains.

    Attributes:
        way: stretches, windows or fit.
        target: log_return or range.
        seed: of weights, dropout and order.
        epochs: at most.
        windows: to train on; as many more are validated as the share of the whole data.
        folder: of recorded minutes; None for the project's own candles.
    """

    way: str
    target: str
    seed: int
    epochs: int
    windows: int
    folder: str | None

    def samples(self, config: Path) -> tuple[Windows, Any, Windows, Any]:
        """Windows and targets to train on and to validate, repeated where the data is shorter."""
        recorded = read_sandbox("15m")
        if self.folder is not None:
            recorded = next(iter(read_folder(Path(self.folder)).values()))
        rows, y, ends = DataPreprocessor(config).scaled_rows(recorded, _LOOKBACK)
        if self.target == "range":
            spread = np.log(recorded["high"].to_numpy() / recorded["low"].to_numpy())[ends]
            y = np.log(spread + 1e-4)
            y = ((y - y.mean()) / y.std()).astype(np.float32)
        validated = self.windows * _VALIDATED // _TRAINED
        available = len(y) - validated - _LOOKBACK
        copies = -(-self.windows // available)
        starts = ends - _LOOKBACK
        trained = np.concatenate([starts[:available] + len(rows) * copy for copy in range(copies)])
        last = slice(len(y) - validated, None)
        return (
            Windows(np.tile(rows, (copies, 1)), trained[: self.windows], _LOOKBACK),
            np.tile(y[:available], copies)[: self.windows],
            Windows(rows, starts[last], _LOOKBACK),
            y[last],
        )


class _Timed(LSTMPricePredictor):
    """A predictor that notes the processor time of each epoch."""

    def __init__(self, config: Path) -> None:
        super().__init__(config)
        self.ends_s: list[float] = []

    def callbacks(self, monitor: str) -> list[Any]:
        """Add a callback to the usual ones."""
        timer = sys.modules["keras"].callbacks.LambdaCallback(
            on_epoch_end=lambda *_: self.ends_s.append(time.process_time())
        )
        return [*super().callbacks(monitor), timer]


def work(run: Run) -> dict[str, Any]:
    """Train once in this process."""
    wall = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        config = Path(folder) / "config.yaml"
        training = "stretches" if run.way == "stretches" else "windows"
        config.write_text(
            f"model: {{seed: {run.seed}, epochs: {run.epochs}, training: {training}, "
            f"loss: {_LOSSES[run.target]}}}\n",
            encoding="utf-8",
        )
        predictor = _Timed(config)
        predictor.checkpoint_path = Path(folder) / "best.keras"
        samples = run.samples(config)
        if run.way == "fit":
            losses = _fit(predictor, *samples)
        else:
            losses = predictor.train(*samples).history
        error = predictor.predict(samples[2])[:, 0] - samples[3]
    return {
        "backend": sys.modules["keras"].backend.backend(),
        "device": _device(),
        "cpu_s": time.process_time(),
        "wall_s": time.perf_counter() - wall,
        "epochs": len(losses["loss"]),
        "epoch_windows": _epoch_windows(run.way, *samples[:2]),
        "epoch_cpu_s": float(np.median(np.diff(predictor.ends_s))),
        "validation_loss": float(
            np.mean(error**2 if _LOSSES[run.target] == "mse" else np.abs(error))
        ),
    }


def _epoch_windows(way: str, x: Windows, y: Any) -> int:  # noqa: ANN401
    """Windows that an epoch trains on: over stretches it is not one pass."""
    if way != "stretches":
        return len(x)
    batches = training_batches(x, y, Model().batch_size, stretched=True)
    batches.shuffle(0, 0)
    return sum(int(np.count_nonzero(batches[index][2])) for index in range(len(batches)))


def _fit(predictor: _Timed, x: Windows, y: Any, x_val: Windows, y_val: Any) -> dict[str, Any]:  # noqa: ANN401
    settings = predictor.config["model"]
    history = predictor.build_model(x.shape[1:]).fit(
        x[:],
        y,
        validation_data=(x_val[:], y_val),
        batch_size=settings["batch_size"],
        epochs=settings["epochs"],
        callbacks=predictor.callbacks("val_loss"),
        verbose=0,
    )
    return dict(history.history)


def _device() -> str:
    """GPU if the backend sees one, else CPU."""
    devices = sys.modules["keras"].distribution.list_devices()
    return "GPU" if any("gpu" in device.lower() for device in devices) else "CPU"


def start(run: Run, backend: str | None) -> dict[str, Any]:
    """Train in another process; empty if it fails, e.g. because the backend is missing."""
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if backend is not None:
        environment["KERAS_BACKEND"] = backend
    done = subprocess.run(  # noqa: S603 - this project's own program
        [sys.executable, "-m", "benchmarks.network.training", "--work", json.dumps(asdict(run))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{backend}, {run.way}: failed: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return {}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare_ways(backends: list[str], folder: str | None, windows: int) -> list[dict[str, Any]]:
    """Processor time of an epoch, by way and backend."""
    cases = [(way, backend) for way in _WAYS for backend in backends]
    runs = [start(Run(way, "log_return", 0, 3, windows, folder), backend) for way, backend in cases]
    found = [{"way": way, **run} for (way, _), run in zip(cases, runs, strict=True) if run]
    if found:
        print_table(
            ("backend", "device", "way", "processor µs a window and epoch"),
            (
                (
                    row["backend"],
                    row["device"],
                    row["way"],
                    1e6 * row["epoch_cpu_s"] / row["epoch_windows"],
                )
                for row in found
            ),
        )
    return found


def compare_runs(seeds: int, folder: str | None) -> dict[str, Any]:
    """Whole runs on the installed backend, over seeds: cost and validation loss."""
    report: dict[str, Any] = {}
    for target in _LOSSES:
        runs: dict[str, list[dict[str, Any]]] = {"stretches": [], "windows": []}
        for seed in range(seeds):
            for way, done in runs.items():
                done.append(start(Run(way, target, seed, 50, _COMPARED, folder), None))
        report[target] = {way: list(filter(None, done)) for way, done in runs.items()}
    print_table(
        ("target", "way", "epochs", "processor s", "wall s", "validation loss", "± s.e."),
        (
            (target, way, *_means(done))
            for target, ways in report.items()
            for way, done in ways.items()
        ),
    )
    return report


def _means(runs: list[dict[str, Any]]) -> tuple[str, ...]:
    keys = ("epochs", "cpu_s", "wall_s", "validation_loss")
    epochs, cpu, wall, loss = (np.array([run[key] for run in runs]) for key in keys)
    error = loss.std(ddof=1) / len(loss) ** 0.5 if len(loss) > 1 else np.nan
    return (
        f"{epochs.mean():.0f}",
        f"{cpu.mean():.1f}",
        f"{wall.mean():.1f}",
        f"{loss.mean():.5f}",
        f"{error:.5f}",
    )


def main() -> None:
    """Measure, print the tables and save them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backends", default="jax,tensorflow", help="Keras backends, by comma")
    parser.add_argument("--seeds", type=int, default=0, help="whole runs of each way")
    parser.add_argument("--windows", type=int, default=15_000, help="of the first table")
    parser.add_argument("--folder", help="Parquet files of recorded minutes")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(Run(**json.loads(args.work)))))
        return
    host = machine("keras", "jax", "tensorflow", "numpy")
    print_machine(host)
    report = {"machine": host, "windows": args.windows}
    report["ways"] = compare_ways(args.backends.split(","), args.folder, args.windows)
    # A whole run with the defaults and the installed backend.
    report["run"] = start(Run("stretches", "range", 0, 50, _TRAINED, args.folder), None)
    print(
        "a whole run over {} windows on {}: {epochs} epochs, {wall_s:.0f} s, "
        "processor {cpu_s:.0f} s".format(_TRAINED, report["run"]["backend"], **report["run"])
    )
    if all(row["device"] == "CPU" for row in report["ways"]):
        print("no GPU was found: there are no figures of one, the same code has run on the CPU")
    if args.seeds:
        report["seeds"] = compare_runs(args.seeds, args.folder)
    save("training", report)


if __name__ == "__main__":
    main()
