"""The daemon with a constant instead of a model: the floor below which no model can bring it.

    python -m benchmarks.constant CONFIG

It receives, checks, keeps windows, encodes and publishes as ever, but derives no features, runs no
network and prepares nothing: every forecast is the last close.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

import daemon.app as wiring
from daemon.cli import main
from model.serving import ServedModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Index = NDArray[np.intp]


class Constant(ServedModel):
    """Answers everything at once."""

    def rebuild(self, idx: Index, ohlcv: NDArray[np.float64]) -> None:
        """Derive nothing."""

    def advance(self, idx: Index, ohlcv: NDArray[np.float64]) -> None:
        """Derive nothing."""

    def prepared(self, idx: Index) -> NDArray[np.bool_]:
        """Always."""
        return np.ones(len(idx), np.bool_)

    def step(self, idx: Index) -> NDArray[np.float32]:
        """Zeros."""
        return np.zeros(len(idx), np.float32)

    def preparation(self, idx: Index) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Nothing to prepare from."""
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


if __name__ == "__main__":
    vars(wiring)["ServedModel"] = Constant
    sys.exit(main(["run", "--config", sys.argv[1]]))
