"""Cut stretches of candles that train many overlapping windows in one pass.

The output of an LSTM at a candle depends only on the candles up to it. One pass over a stretch of
`lookback` + 35 rows gives 36 forecasts, each of which has seen `lookback` rows or more, for little
more than the price of one window of `lookback` rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.features.sliding_windows import Windows

    Integers = NDArray[np.int64]

LABELS: Final = 36
"""Forecasts per stretch. More are cheaper and see older rows, which are not served."""


class Stretches:
    """Windows and their targets as batches of stretches of equal shape.

    The epochs divide an endless sequence of passes, each of which has every window once and cuts
    the stretches at other rows. The first window of a stretch is seen as it is served; the others
    are seen with up to 35 rows before their own. Labels that are missing, where a run of windows
    ends, have weight 0.

    Args:
        windows: the samples, ``[n]``; those with consecutive starts share stretches.
        y: targets ``[n]``.
        size: stretches of a batch.
    """

    def __init__(self, windows: Windows, y: NDArray[Any], size: int) -> None:
        order = np.argsort(windows.starts, kind="stable")
        self._rows, self._lookback = windows.rows, windows.shape[1]
        self._starts, self._y = windows.starts[order], y[order].astype(np.float32)
        # Runs of windows that begin at consecutive rows, as positions: first, end.
        breaks = np.flatnonzero(np.diff(self._starts) != 1) + 1
        self._runs = np.stack([np.append(0, breaks), np.append(breaks, len(order))], axis=1)
        # A run takes one stretch more when it is not cut in multiples of LABELS.
        longest = -((1 - np.diff(self._runs) - LABELS) // LABELS)
        self._size, self._batches = size, math.ceil(int(longest.sum()) / size)
        self._pass_length = self._batches * size
        # The mean over all labels, missing ones included, is the mean over the windows.
        self._weight = self._pass_length * LABELS / len(order)
        self._first, self._count = self._cut(np.zeros(len(self._runs), np.int64))

    def set_epoch(self, batches: int) -> None:
        """Set the number of batches of an epoch, from the next `shuffle` on; at first one pass."""
        self._batches = batches

    def shuffle(self, seed: int | None, epoch: int) -> None:
        """Set cuts and order of an epoch, which depend only on seed and number."""
        length = self._batches * self._size
        begin, end = epoch * length, (epoch + 1) * length
        numbers = range(begin // self._pass_length, -(-end // self._pass_length))
        first, count = map(
            np.concatenate, zip(*(self._pass(seed, number) for number in numbers), strict=True)
        )
        skipped = begin - numbers[0] * self._pass_length
        self._first, self._count = first[skipped:][:length], count[skipped:][:length]

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return self._batches

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], ...]:
        """Batch number ``index``.

        Returns:
            Rows ``[size, lookback - 1 + LABELS, features]``, targets ``[size, LABELS, 1]`` and
            their weights ``[size, LABELS]``.
        """
        chosen = slice(index * self._size, (index + 1) * self._size)
        first, count = self._first[chosen, None], self._count[chosen, None]
        label = np.arange(LABELS)
        # Rows after the last label may be another symbol's, or not finite.
        step = np.minimum(np.arange(self._lookback - 1 + LABELS), self._lookback - 2 + count)
        rows = self._rows[self._starts[first] + step]
        targets = self._y[first + np.minimum(label, np.maximum(count - 1, 0))]
        weights = np.where(label < count, self._weight, 0.0).astype(np.float32)
        return rows, targets[..., None], weights

    def _pass(self, seed: int | None, number: int) -> tuple[Integers, Integers]:
        random = np.random.default_rng(None if seed is None else (seed, number))
        first, count = self._cut(random.integers(0, LABELS, len(self._runs)))
        order = random.permutation(self._pass_length)
        return first[order], count[order]

    def _cut(self, offsets: Integers) -> tuple[Integers, Integers]:
        """Cut each run after ``offsets`` windows and then after every `LABELS`.

        Returns:
            Position of each stretch's first window, and its number of windows, 0 where there are
            fewer stretches than a pass may need.
        """
        firsts, counts = [], []
        for (begin, end), offset in zip(self._runs, offsets, strict=True):
            edges = np.concatenate([[begin], np.arange(begin + offset, end, LABELS), [end]])
            firsts.append(edges[:-1])
            counts.append(np.diff(edges))
        first, count = np.concatenate(firsts), np.concatenate(counts)
        first, count = first[count > 0], count[count > 0]
        missing = (0, self._pass_length - len(first))
        return np.pad(first, missing), np.pad(count, missing)
