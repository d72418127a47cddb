"""Compute recursive and moving means of many symbols in contiguous arrays.

``advance`` computes what a value would make of the state and keeps nothing; who wants it kept
stores it. ``row`` counts the values a symbol has had before, so every symbol may be elsewhere in
its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Average(NamedTuple):
    """A recursive mean: seeded by the plain mean of ``period`` values from row ``start`` on."""

    start: int
    period: int
    alpha: float


class Recursions:
    """Several recursive means, each for every symbol.

    Seeding and smoothing are both linear in the state, so a table of coefficients by row serves
    both: add up, divide when the seed is complete, then smooth.

    Attributes:
        state: the means, ``[n_symbols, averages]``.
        last_row: from here on all of them smooth.
    """

    def __init__(self, averages: Sequence[Average], n_symbols: int) -> None:
        self.state = np.zeros((n_symbols, len(averages)))
        self.last_row = max(a.start + a.period for a in averages)
        self._keep = np.zeros((self.last_row + 1, len(averages)))
        self._take = np.zeros_like(self._keep)
        for j, (start, period, alpha) in enumerate(averages):
            seed = start + period - 1
            self._keep[start:seed, j] = self._take[start:seed, j] = 1.0
            self._keep[seed, j] = self._take[seed, j] = 1.0 / period
            self._keep[seed + 1 :, j] = 1.0 - alpha
            self._take[seed + 1 :, j] = alpha

    def advance(self, idx: IntArray, row: IntArray | None, values: FloatArray) -> FloatArray:
        """The means after ``values``, without keeping them.

        Args:
            idx: ``[k]`` symbol numbers.
            row: ``[k]`` values that each has had before; None: all have had ``last_row`` or more.
            values: ``[k, averages]``.
        """
        keep, take = self._keep[-1], self._take[-1]
        if row is not None:
            row = np.minimum(row, self.last_row)
            keep, take = self._keep.take(row, axis=0), self._take.take(row, axis=0)
        means: FloatArray = keep * self.state.take(idx, axis=0)
        means += take * values
        return means


class Ring:
    """The last ``period`` values of every symbol; order inside does not matter to a mean."""

    def __init__(self, period: int, n_symbols: int) -> None:
        self.values = np.zeros((n_symbols, period))
        self._period = period
        self._lines = np.arange(n_symbols)

    def advance(self, idx: IntArray, row: IntArray, value: FloatArray) -> FloatArray:
        """The window ``[k, period]`` after ``value [k]``, without keeping it."""
        window = self.values.take(idx, axis=0)
        window[self._lines[: idx.size], row % self._period] = value
        return window

    def store(self, idx: IntArray, row: IntArray, value: FloatArray) -> None:
        """Keep ``value [k]``."""
        self.values[idx, row % self._period] = value


def mean_of_each(window: FloatArray) -> FloatArray:
    """The mean of each line of ``window [k, period]``; `numpy.mean` without its preliminaries."""
    mean: FloatArray = np.add.reduce(window, axis=1) / window.shape[1]
    return mean
