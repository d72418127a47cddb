"""Define the interval and the probabilities around a batch of forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.forecasts.forecast import Interval, Probabilities

if TYPE_CHECKING:
    from model.forecasts.rules import Rules

Floats = NDArray[np.float64]


class Outlook(NamedTuple):
    """Interval and probabilities of k forecasts; NaN where ``known`` is False.

    Attributes:
        known: whether the symbol has enough residuals, ``[k]``.
        learnt: number of forecasts that the calibration has learnt from, ``[k]``.
        rules: settings that they were computed with.
        lower: price, at most the forecast, above 0, ``[k]``.
        upper: price, at least the forecast, finite, ``[k]``.
        threshold: return, ``[k]``.
        short: probability of a return below ``-threshold``, ``[k]``.
        neutral: of one between, ``[k]``.
        long: of one above ``threshold``; the three sum to 1, ``[k]``.
    """

    known: NDArray[np.bool_]
    learnt: NDArray[np.int64]
    rules: Rules
    lower: Floats
    upper: Floats
    threshold: Floats
    short: Floats
    neutral: Floats
    long: Floats

    def sound(self) -> NDArray[np.bool_]:
        """Tell which forecasts have no outlook or a possible one, ``[k]``."""
        priced = (self.lower > 0.0) & (self.lower <= self.upper) & (self.upper < np.inf)
        shares = np.array([self.short, self.neutral, self.long])
        fine: NDArray[np.bool_] = (
            priced
            & (self.threshold >= 0.0)
            & (self.threshold < np.inf)
            & ((shares >= 0.0) & (shares <= 1.0)).all(axis=0)
        )
        return ~self.known | fine

    def part(self, which: slice | list[int]) -> Outlook:
        """Select some of the forecasts."""
        columns = (column[which] for column in self[3:])
        return Outlook(self.known[which], self.learnt[which], self.rules, *columns)

    def messages(self) -> list[tuple[Interval, Probabilities] | tuple[None, None]]:
        """Convert to the published form, one pair per forecast."""
        columns = (column.tolist() for column in (self.known, *self[3:]))
        level = self.rules.level
        return [
            (Interval(level, lower, upper), Probabilities(*chances)) if known else (None, None)
            for known, lower, upper, *chances in zip(*columns, strict=True)
        ]
