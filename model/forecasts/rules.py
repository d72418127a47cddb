"""Define what is asked of intervals and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Rules:
    """What is asked for.

    Attributes:
        level: share of closes that the interval shall hold.
        gamma: step of the adaptation.
        min_n: residuals before anything is said.
        threshold: a return between neutral and not; None: ``multiple`` of the current volatility.
        multiple: 1 is the move that half of the next closes exceed.
    """

    level: float = 0.9
    gamma: float = 0.005
    min_n: int = 200
    threshold: float | None = None
    multiple: float = 0.6


DEFAULT_RULES: Final = Rules()
