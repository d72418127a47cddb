"""Show training progress as a bar on a terminal, otherwise as one line per epoch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TrainingProgress:
    """Receives batches and epochs from the training loop.

    Args:
        epochs: epochs at most.
        batches: batches per epoch.
    """

    def __init__(self, epochs: int, batches: int) -> None:
        self._epochs = epochs
        self._batches = batches
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def start(self) -> None:
        """Start the display."""
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, transient=True)
            self._task = self._bar.add_task("", total=self._batches)
            self._bar.start()

    def epoch_began(self, epoch: int) -> None:
        """Show that epoch ``epoch`` (from 0) starts."""
        if self._bar is not None:
            description = f"Epoch {epoch + 1}/{self._epochs}"
            self._bar.reset(self._task, description=description, total=self._batches)

    def batch_ended(self, batch: int) -> None:
        """Show that batch ``batch`` (from 0) of the epoch is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=batch + 1)

    def epoch_ended(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Print losses and metrics of epoch ``epoch`` (from 0)."""
        names = [name for name in ("loss", "mae", "val_loss", "val_mae") if name in logs]
        values = " - ".join(f"{name}: {logs[name]:.6g}" for name in names)
        print(f"Epoch {epoch + 1}/{self._epochs} ... {values}", flush=True)  # noqa: T201

    def end(self) -> None:
        """Stop the display."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def print_last_value(last: NDArray[Any], y: NDArray[Any], mae: float) -> None:
    """Print the last-value forecast's error beside the model's.

    Args:
        last: the last-value forecast in scaled units, ``[n]``.
        y: true targets, ``[n]``.
        mae: of the model.
    """
    error = float(np.mean(np.abs(last - y)))
    ratio = mae / error if error > 0.0 else float("nan")
    print(f"mae of the last-value forecast: {error:.6f} (model / last value: {ratio:.4f})")  # noqa: T201
