"""Plot loss and MAE of a training run by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def plot_history(history: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw loss (left) and MAE (right) by epoch, training and validation, and save the figure."""
    # Figure, not pyplot: pyplot keeps every figure alive and may look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2), ("loss", "mae"), ("Loss", "MAE"), strict=True
    ):
        for prefix, label in (("", "train"), ("val_", "validation")):
            if values := history.get(prefix + key):
                axes.plot(range(1, len(values) + 1), values, label=label)
        axes.set_title(title)
        axes.set_xlabel("Epoch")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
