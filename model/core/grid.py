"""Find the boundaries that the candles of a timeframe keep to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.core.candle import moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from model.core.candle import Timeframe

_MAX_SHOWN = 3


def learnt(timeframe: Timeframe, opens_ms: ArrayLike, whole_ms: int = 1) -> Timeframe | None:
    """Return the timeframe on the grid that more than half of the candles keep to.

    Args:
        timeframe: length of the candles.
        opens_ms: opening times, Unix milliseconds, in any order.
        whole_ms: accept only boundaries at multiples of this. Callers pass a minute for files of
            unknown origin, where a time just before a minute is a closing time.

    Returns:
        None without candles, or if no grid fits more than half of them.
    """
    opens = np.asarray(opens_ms, dtype=np.int64)
    phases, counts = np.unique(opens % timeframe.ms, return_counts=True)
    if not len(phases) or 2 * counts.max() <= len(opens):
        return None
    phase_ms = int(phases[counts.argmax()])
    return None if phase_ms % whole_ms else timeframe.through(phase_ms)


def no_grid(timeframe: Timeframe, opens_ms: Sequence[int]) -> str:
    """Describe candles that do not follow each other at the distance of the timeframe."""
    newest = [moment(at) for at in sorted(set(opens_ms))[-_MAX_SHOWN:]]
    return f"the {timeframe.text} candles do not open every {timeframe.text}: {', '.join(newest)}"
