"""Learn from candles where the grid of a timeframe begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.core.candle import moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from model.core.candle import Timeframe

_SHOWN = 3


def learnt(timeframe: Timeframe, opens_ms: ArrayLike, whole_ms: int = 1) -> Timeframe | None:
    """The timeframe on the grid that more than half of some candles keep to.

    Args:
        timeframe: length of the candles.
        opens_ms: opening times, Unix milliseconds, in any order.
        whole_ms: boundaries are at multiples of this. In files of unknown origin a minute: what
            stands a second or a millisecond before one is the time of a close.

    Returns:
        None where they keep to none, or there are no candles.
    """
    opens = np.asarray(opens_ms, dtype=np.int64)
    phases, counts = np.unique(opens % timeframe.ms, return_counts=True)
    if not len(phases) or 2 * counts.max() <= len(opens):
        return None
    phase_ms = int(phases[counts.argmax()])
    return None if phase_ms % whole_ms else timeframe.through(phase_ms)


def no_grid(timeframe: Timeframe, opens_ms: Sequence[int]) -> str:
    """Say that candles do not follow each other at the timeframe's distance."""
    newest = [moment(at) for at in sorted(set(opens_ms))[-_SHOWN:]]
    return f"the {timeframe.text} candles do not open every {timeframe.text}: {', '.join(newest)}"
