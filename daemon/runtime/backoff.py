"""Compute the delays between attempts: exponential, bounded, with jitter.

Written by hand, 20 lines: the installed libraries offer it only in private (`backoff` of
`websockets.asyncio.client`, which cannot be reset), and retry decorators such as tenacity's wrap
one call, where a connection is an attempt that may last for days.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_FACTOR: Final = 2.0
"""Each delay is this many times the one before."""

_MAX_JITTER: Final = 0.5
"""Largest share of a delay that jitter takes off."""


class Backoff:
    """Delays before attempts to reconnect; does not sleep itself.

    Jitter ("equal jitter") keeps many daemons from reconnecting in step. It only shortens a delay,
    so that no delay exceeds the maximum.
    """

    def __init__(
        self, min_s: float, max_s: float, draw: Callable[[], float] = random.random
    ) -> None:
        """Start with the shortest delay.

        Args:
            min_s: first delay without jitter, seconds.
            max_s: upper bound of all delays, seconds.
            draw: a random number of [0, 1) per delay.
        """
        self._min_s = min_s
        self._max_s = max_s
        self._draw = draw
        self._delay_s = min_s

    def next_delay_s(self, max_s: float | None = None) -> float:
        """The delay before the next attempt, seconds; the one after it will be longer.

        Args:
            max_s: another upper bound, for this delay only.
        """
        delay_s = min(self._delay_s, self._max_s if max_s is None else max_s)
        self._delay_s = delay_s * _FACTOR
        return delay_s * (1.0 - _MAX_JITTER * self._draw())

    def reset(self) -> None:
        """Start over with the shortest delay, after a success."""
        self._delay_s = self._min_s

    def reset_if_steady(self, lasted_s: float) -> bool:
        """Start over if a connection lasted longer than the longest delay.

        A peer that accepts connections and closes them at once does not count as a success.

        Args:
            lasted_s: from the attempt to the loss of the connection, seconds.

        Returns:
            Whether it did.
        """
        steady = lasted_s > self._max_s
        if steady:
            self.reset()
        return steady
