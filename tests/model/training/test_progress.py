from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from model.training.progress import TrainingProgress

if TYPE_CHECKING:
    import pytest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(progress: TrainingProgress) -> None:
    progress.start()
    for epoch in range(2):
        progress.epoch_began(epoch)
        for batch in range(3):
            progress.batch_ended(batch)
        progress.epoch_ended(epoch, {"loss": 0.5, "mae": 0.25, "val_loss": 0.125, "rate": 1.0})
    progress.end()


LINES = [f"Epoch {n}/2 ... loss: 0.5 - mae: 0.25 - val_loss: 0.125" for n in (1, 2)]


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    run(TrainingProgress(epochs=2, batches=3))
    assert capsys.readouterr().out.splitlines() == LINES


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    run(TrainingProgress(epochs=2, batches=3))
    shown = terminal.getvalue()
    assert "━" in shown
    assert all(line in shown for line in LINES)
    assert sys.stdout is terminal
