"""Define the settings of intervals and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Rules:
    """Settings of intervals and probabilities.

    Attributes:
        level: share of closes that the interval should contain.
        gamma: step of the adaptation of the interval.
        min_n: residuals needed before interval and probabilities are given.
        threshold: smallest return that is not neutral; None: ``multiple`` of the volatility.
        multiple: of the move that half of the next closes exceed.
    """

    level: float = 0.9
    gamma: float = 0.005
    min_n: int = 200
    threshold: float | None = None
    multiple: float = 0.6


DEFAULT_RULES: Final = Rules()
