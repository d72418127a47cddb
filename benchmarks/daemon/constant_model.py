"""Run the daemon with a constant in place of the model, as a lower bound of its latency.

    python -m benchmarks.daemon.constant_model CONFIG

It receives, checks, keeps windows, encodes and publishes as usual, but computes no features, runs
no network and prepares no states: every forecast is the last close.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from daemon.cli.main import main
from model.serving import ServedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Index = NDArray[np.intp]


class Constant(ServedModel):
    """A model whose methods return at once."""

    def rebuilding(self, idx: Index, ohlcv: NDArray[np.float64]) -> Iterator[None]:
        """Compute nothing."""
        del idx, ohlcv
        return iter(())

    def advance(self, idx: Index, ohlcv: NDArray[np.float64]) -> None:
        """Compute nothing."""

    def prepared(self, idx: Index) -> NDArray[np.bool_]:
        """True for every symbol."""
        return np.ones(len(idx), np.bool_)

    def step(self, idx: Index) -> NDArray[np.float32]:
        """Zeros."""
        return np.zeros(len(idx), np.float32)

    def peek(self, idx: Index, ohlcv: NDArray[np.float64]) -> NDArray[np.float32]:
        """Zeros."""
        del ohlcv
        return np.zeros(len(idx), np.float32)

    def preparation(self, idx: Index) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Empty windows."""
        return np.zeros((len(idx), 0, 0), np.float32), np.zeros(len(idx), np.int64)

    def prepare(self, idx: Index, windows: NDArray[np.float32], stamps: NDArray[np.int64]) -> None:
        """Prepare nothing."""

    def price(
        self, idx: Index, raw: NDArray[np.float32], last_close: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The last close."""
        del idx, raw
        return last_close

    def out_of_range(self, idx: Index) -> NDArray[np.float64]:
        """Zeros."""
        return np.zeros(len(idx))


def replace() -> None:
    """Replace the methods of the served model's class by those above."""
    for name, method in vars(Constant).items():
        if not name.startswith("__"):
            getattr(ServedModel, name)
            setattr(ServedModel, name, method)


if __name__ == "__main__":
    replace()
    sys.exit(main(["run", "--config", sys.argv[1]]))
