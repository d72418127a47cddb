"""Test windows that are cut on demand, and the order of batches."""

from __future__ import annotations

import numpy as np
import pytest

from model.features.sliding_windows import Batches, Windows

ROWS = np.arange(40, dtype=np.float32).reshape(20, 2)
STARTS = np.array([0, 1, 2, 9, 10, 15])


def test_windows_read_like_the_array_they_stand_for() -> None:
    windows = Windows(ROWS, STARTS, 5)
    written = np.stack([ROWS[start : start + 5] for start in STARTS])
    assert windows.shape == written.shape == (6, 5, 2)
    assert (windows.ndim, len(windows)) == (written.ndim, len(written))
    for chosen in (slice(None), slice(2, 4), np.array([5, 0, 0]), np.array([], np.int64)):
        assert np.array_equal(windows[chosen], written[chosen])
    assert windows[:].flags.c_contiguous
    assert windows[:].dtype == np.float32


def test_batches_hold_every_sample_once_an_epoch() -> None:
    windows, y = Windows(ROWS, STARTS, 5), STARTS.astype(np.float32)
    batches = Batches(windows, y, 4)
    assert len(batches) == 2
    assert [len(y) for _, y in (batches[0], batches[1])] == [4, 2]
    for epoch in range(3):
        batches.shuffle(7, epoch)
        taken = [pair for index in range(2) for pair in zip(*batches[index], strict=True)]
        assert sorted(float(y) for _, y in taken) == STARTS.tolist()
        # Samples stay aligned: a window's first row identifies it.
        assert all(x[0, 0] == 2 * y for x, y in taken)


def test_the_order_of_an_epoch_does_not_depend_on_earlier_ones() -> None:
    def order(batches: Batches, seed: int | None, epoch: int) -> list[float]:
        batches.shuffle(seed, epoch)
        return [float(value) for value in batches[0][1]]

    def fresh() -> Batches:
        return Batches(np.zeros((50, 1, 1)), np.arange(50.0), 50)

    one, other = fresh(), fresh()
    first, second = (order(one, 7, epoch) for epoch in range(2))
    assert order(other, 7, 1) == second != first
    assert order(other, 8, 1) != second
    assert order(other, None, 1) != order(one, None, 1)


@pytest.mark.parametrize("size", [1, 3, 6, 100])
def test_a_forecast_takes_the_windows_in_order(size: int) -> None:
    windows = Windows(ROWS, STARTS, 5)
    batches = Batches(windows, None, size)
    parts = [batches[index] for index in range(len(batches))]
    assert np.array_equal(np.concatenate([x for (x,) in parts]), windows[:])
