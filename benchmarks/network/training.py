"""Measure how fast the network trains, and whether speed costs validation loss.

    python -m benchmarks.network.training     seconds per epoch, then loss over seeds
    python -m benchmarks.network.training --quick  seconds per epoch from fewer steps, no losses
    python -m benchmarks.network.training --backends tensorflow,jax --json training.json

An epoch has 45,000 windows of 60x6 for training and 9,643 for validation. A shorter epoch is timed
and extrapolated by its number of samples. The settings take turns, round by round, so a busy
machine slows all of them down alike. Each backend runs in its own process, because Keras allows one
per process; a backend that is not installed is reported and left out.
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
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from benchmarks.harness.candles import read_sandbox
from model.lstm_model import LSTMPricePredictor
from model.preprocess import DataPreprocessor

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPOCH: Final = 45_000
_VALIDATION: Final = 9_643
_BASELINE: Final = "fit, batch 32"
_WAIT_S: Final = 30.0


@dataclass(frozen=True)
class Setting:
    """One way to train; ``ours`` is `LSTMPricePredictor.train`, else `keras.Model.fit` bare."""

    name: str
    batch: int
    rate: float
    steps_per_execution: int = 1
    ours: bool = False


SETTINGS: Final = (
    Setting(_BASELINE, 32, 0.001),
    Setting("fit, batch 32, 16 steps per execution", 32, 0.001, 16),
    Setting("fit, batch 256", 256, 0.003),
    Setting("fit, batch 256, 8 steps per execution", 256, 0.003, 8),
    Setting("train(), batch 32", 32, 0.001, ours=True),
    Setting("train(), batch 256", 256, 0.003, ours=True),
)


@dataclass(frozen=True)
class Sequences:
    """Windows ``[n, 60, F]`` and scaled targets ``[n]``."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]

    def cut(self, start: int, stop: int) -> Sequences:
        """The sequences of a range, repeating the data where it is shorter."""
        rows = np.arange(start, stop) % len(self.x)
        return Sequences(self.x[rows], self.y[rows])


class Trainer:
    """Builds and trains networks on one backend.

    Args:
        folder: where configuration and checkpoints may lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._warm: dict[str, LSTMPricePredictor] = {}
        self._data: dict[str, Sequences] = {}

    def seconds(self, setting: Setting, samples: int) -> tuple[float, float]:
        """Seconds of one epoch, wall and processor, extrapolated to 45,000; tracing not counted."""
        data, cut = self._sequences("log_return"), round(samples * _VALIDATION / _EPOCH)
        train, val = data.cut(0, samples), data.cut(samples, samples + cut)
        if setting.name not in self._warm:
            self._warm[setting.name] = self._build(setting, "log_return", seed=1)
            least = setting.batch * setting.steps_per_execution
            self._fit(self._warm[setting.name], setting, data.cut(0, least), val, epochs=1)
        wall, cpu, scale = time.perf_counter(), time.process_time(), _EPOCH / samples
        self._fit(self._warm[setting.name], setting, train, val, epochs=1)
        return (time.perf_counter() - wall) * scale, (time.process_time() - cpu) * scale

    def loss(self, setting: Setting, target: str, seed: int) -> tuple[float, float]:
        """Best validation loss and number of epochs of a whole run with early stopping."""
        data = self._sequences(target)
        first, second = int(len(data.x) * 0.7), int(len(data.x) * 0.85)
        predictor = self._build(setting, target, seed)
        history = self._fit(
            predictor, setting, data.cut(0, first), data.cut(first, second), epochs=50
        )
        return min(history["val_loss"]), len(history["val_loss"])

    def same_start(self, setting: Setting) -> tuple[float, ...]:
        """Validation loss after each of two epochs: weights and order fixed, no dropout."""
        data, random = self._sequences("close"), np.random.default_rng(0)
        predictor = self._build(setting, "close", seed=0, dropout=0.0)
        model = predictor.model
        assert model is not None
        start = [random.normal(0.0, 0.15, w.shape).astype(np.float32) for w in model.get_weights()]
        model.set_weights(start)
        train, val = data.cut(0, 3_200), data.cut(3_200, 4_800)
        history = model.fit(
            train.x,
            train.y,
            validation_data=(val.x, val.y),
            batch_size=setting.batch,
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        return tuple(history.history["val_loss"])

    def _sequences(self, target: str) -> Sequences:
        if target not in self._data:
            preprocessor = DataPreprocessor(self._config(f"{{target: {target}}}"))
            x, y, _ = preprocessor.create_sequences(read_sandbox("1h"), lookback=60)
            self._data[target] = Sequences(x, y)
        return self._data[target]

    def _config(self, model: str) -> Path:
        path = self._folder / "config.yaml"
        path.write_text(f"model: {model}\n", encoding="utf-8")
        return path

    def _build(
        self, setting: Setting, target: str, seed: int, dropout: float = 0.2
    ) -> LSTMPricePredictor:
        text = (
            f"{{target: {target}, seed: {seed}, batch_size: {setting.batch}, "
            f"learning_rate: {setting.rate}, dropout_rate: {dropout}}}"
        )
        predictor = LSTMPricePredictor(self._config(text))
        predictor.checkpoint_path = self._folder / "best.keras"
        model = predictor.build_model((60, 6))
        model.steps_per_execution = setting.steps_per_execution
        return predictor

    def _fit(
        self,
        predictor: LSTMPricePredictor,
        setting: Setting,
        train: Sequences,
        val: Sequences,
        epochs: int,
    ) -> dict[str, list[float]]:
        if setting.ours or epochs > 1:
            predictor.config["model"]["epochs"] = epochs
            return dict(predictor.train(train.x, train.y, val.x, val.y).history)
        assert predictor.model is not None
        history = predictor.model.fit(
            train.x,
            train.y,
            validation_data=(val.x, val.y),
            batch_size=setting.batch,
            epochs=epochs,
            verbose=0,
        )
        return dict(history.history)


def serve() -> None:
    """The child process: one JSON request per line in, one JSON answer out."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Path(folder))
        for line in sys.stdin:
            request = json.loads(line)
            setting = Setting(**request["setting"])
            with contextlib.redirect_stdout(io.StringIO()):
                answer: tuple[float, ...]
                if request["ask"] == "seconds":
                    answer = trainer.seconds(setting, request["samples"])
                elif request["ask"] == "same_start":
                    answer = trainer.same_start(setting)
                else:
                    answer = trainer.loss(setting, request["target"], request["seed"])
            print(json.dumps(answer), flush=True)


class Backend:
    """A child process that trains with one Keras backend; a context manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        environment = {**os.environ, "KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.network.training", "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Self:
        """Started with the object."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child by ending its input."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(_WAIT_S)

    def ask(self, ask: str, setting: Setting, **rest: object) -> list[float]:
        """One request; an empty answer when the backend cannot run it."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(
                json.dumps({"ask": ask, "setting": asdict(setting), **rest}),
                file=self._child.stdin,
                flush=True,
            )
        answer = self._child.stdout.readline()
        return list(json.loads(answer)) if answer else []


def time_epochs(backends: list[Backend], samples: int, rounds: int) -> list[dict[str, Any]]:
    """Medians of the rounds; processor seconds tell more than wall seconds on a busy machine."""
    table: dict[tuple[str, str], list[list[float]]] = {}
    for _ in range(rounds):
        for backend in backends:
            for setting in SETTINGS:
                seconds = backend.ask("seconds", setting, samples=samples)
                if seconds:
                    table.setdefault((backend.name, setting.name), []).append(seconds)
    medians = {key: np.median(rounds_, axis=0) for key, rounds_ in table.items()}
    base = medians.get(("tensorflow", _BASELINE), np.array([np.nan, np.nan]))
    print(f"\n{'backend':<12}{'way':<40}{'s per epoch':>12}{'faster':>8}{'CPU s':>8}{'faster':>8}")
    for (backend_name, name), (wall, cpu) in medians.items():
        print(
            f"{backend_name:<12}{name:<40}{wall:>12.1f}{base[0] / wall:>8.2f}"
            f"{cpu:>8.1f}{base[1] / cpu:>8.2f}"
        )
    return [
        {"backend": backend_name, "way": name, "wall_and_cpu_s": rounds_}
        for (backend_name, name), rounds_ in table.items()
    ]


def compare_backends(backends: list[Backend]) -> dict[str, list[float]]:
    """Whether the backends learn the same from the same start."""
    losses = {b.name: b.ask("same_start", SETTINGS[0]) for b in backends}
    print(
        "\nvalidation loss after one and two epochs from the same weights, same order, no dropout"
    )
    for name, values in losses.items():
        print(f"{name:<12}" + "".join(f"{value:>12.8f}" for value in values))
    return losses


def compare_losses(backends: list[Backend], seeds: int) -> list[dict[str, Any]]:
    """Best validation loss of whole runs at both batch sizes, over seeds."""
    rows: list[dict[str, Any]] = []
    print(f"\n{'target':<12}{'backend':<12}{'way':<20}{'val loss':>10}{'± s.e.':>10}{'epochs':>8}")
    cases = [
        (target, backend, setting)
        for target in ("close", "log_return")
        for backend in backends
        for setting in SETTINGS
        if setting.ours
    ]
    for target, backend, setting in cases:
        runs = [backend.ask("loss", setting, target=target, seed=k) for k in range(seeds)]
        if not all(runs):
            continue
        loss, epochs = np.mean(runs, axis=0)
        error = np.std([run[0] for run in runs], ddof=1) / seeds**0.5
        print(
            f"{target:<12}{backend.name:<12}{setting.name:<20}{loss:>10.6f}{error:>10.6f}{epochs:>8.1f}"
        )
        rows.append(
            {
                "target": target,
                "backend": backend.name,
                "way": setting.name,
                "loss_and_epochs": runs,
            }
        )
    return rows


def main() -> None:
    """Measure, print the tables, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backends", default="tensorflow", help="Keras backends, by comma")
    parser.add_argument("--quick", action="store_true", help="fewer steps, no losses")
    parser.add_argument("--seeds", type=int, default=5, help="runs per row of the loss table")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Backend(n)) for n in args.backends.split(",")]
        report: dict[str, Any] = {
            "cpus": os.cpu_count(),
            "epochs": time_epochs(backends, 2048 if args.quick else 6144, 3 if args.quick else 5),
        }
        report["same_start"] = compare_backends(backends)
        if not args.quick:
            report["losses"] = compare_losses(backends, args.seeds)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
