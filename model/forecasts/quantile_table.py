"""Interpolate in a table with one row of quantiles per symbol.

Written by hand: `numpy.interp` takes one row at a time, which is too slow for 1,000 symbols.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.forecasts.residuals import LEVELS

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


def interpolate(table: Floats, place: Floats) -> Floats:
    """Interpolate ``table [k, columns]`` at fractional columns ``place [places, k]``.

    Returns:
        ``[places, k]``.
    """
    left = np.minimum(place.astype(np.intp), table.shape[1] - 2)
    low, high = _neighbours(table, left)
    part = place - left
    value: Floats = low * (1.0 - part) + high * part
    return value


def _neighbours(table: Floats, left: Index) -> tuple[Floats, Floats]:
    """Return the values in the columns ``left [places, k]`` of each row and those to the right."""
    at = left + np.arange(0, table.size, table.shape[1])
    return table.take(at), table.take(at + 1)


def share_below(table: Floats, value: Floats) -> Floats:
    """Probability of a residual below ``value [values, k]``, row by row, from 0.001 to 0.999."""
    reached = (table <= value[:, :, None]).sum(axis=2)
    left = np.minimum(np.maximum(reached, 1), table.shape[1] - 1) - 1
    low, high = _neighbours(table, left)
    part = np.ones_like(value)
    np.divide(value - low, high - low, out=part, where=high > low)
    np.minimum(np.maximum(part, 0.0), 1.0, out=part)
    lower_level = LEVELS.take(left)
    share: Floats = lower_level + part * (LEVELS.take(left + 1) - lower_level)
    return share
