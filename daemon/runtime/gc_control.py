"""Run garbage collection between bursts of candles instead of in the middle of one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_YOUNG_INTERVAL_S: Final = 1.0
_OLD_INTERVAL_S: Final = 60.0
_MAX_WAIT_S: Final = 10.0
"""Longest time without a collection if the daemon is never idle."""


class GcScheduler:
    """Decides when to collect: young objects every second, old ones every minute, while idle.

    Automatic collection starts after a number of allocations, which is in the middle of a burst of
    closing candles, and costs a fifth of the burst.
    """

    def __init__(self, now_s: float) -> None:
        """Start at ``now_s`` (monotonic)."""
        # When the last collection of each kind ran, monotonic clock.
        self._last_young_s = now_s
        self._last_old_s = now_s

    def due(self, now_s: float, *, idle: bool) -> int | None:
        """The oldest generation to collect now, or None.

        Args:
            now_s: monotonic clock.
            idle: whether no candle waits.
        """
        since_s = now_s - self._last_young_s
        if since_s < (_YOUNG_INTERVAL_S if idle else _MAX_WAIT_S):
            return None
        self._last_young_s = now_s
        if now_s - self._last_old_s < _OLD_INTERVAL_S:
            return 1
        self._last_old_s = now_s
        return 2

    def collect(self, now_s: float, *, idle: bool) -> None:
        """Collect what is due."""
        generation = self.due(now_s, idle=idle)
        if generation is not None:
            gc.collect(generation)


@contextmanager
def no_gc() -> Iterator[None]:
    """Disable collection in the block, and exempt the objects made in it from later collections.

    For imports, which make hundreds of thousands of permanent objects. Scanning them took a
    quarter of the start.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def manual_gc() -> Iterator[None]:
    """Disable automatic collection in the block, and exempt existing objects from collections."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
