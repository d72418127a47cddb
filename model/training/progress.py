"""Show training progress as a bar on a terminal, otherwise as one line per epoch."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """Told of batches and epochs by the training loop.

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
        """Training begins."""
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, transient=True)
            self._task = self._bar.add_task("", total=self._batches)
            self._bar.start()

    def epoch_began(self, epoch: int) -> None:
        """Epoch number ``epoch`` (from 0) begins."""
        if self._bar is not None:
            description = f"Epoch {epoch + 1}/{self._epochs}"
            self._bar.reset(self._task, description=description, total=self._batches)

    def batch_ended(self, batch: int) -> None:
        """Batch number ``batch`` (from 0) of the epoch is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=batch + 1)

    def epoch_ended(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Epoch number ``epoch`` (from 0) is done, with these losses and metrics."""
        names = [name for name in ("loss", "mae", "val_loss", "val_mae") if name in logs]
        values = " - ".join(f"{name}: {logs[name]:.6g}" for name in names)
        print(f"Epoch {epoch + 1}/{self._epochs} ... {values}", flush=True)  # noqa: T201

    def end(self) -> None:
        """Training is over."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
