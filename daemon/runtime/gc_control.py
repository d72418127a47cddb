"""Garbage collection between bursts instead of in the middle of one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_YOUNG_S: Final = 1.0
_OLD_S: Final = 60.0
_PATIENCE_S: Final = 10.0
"""A daemon that is never idle has its garbage collected at least so often."""


class GcScheduler:
    """Decides when to collect: young garbage every second, old every minute, when nothing waits.

    Left to itself, the collector runs when enough objects were made, which is in the middle of a
    burst of closing candles; there it costs a fifth of the burst.
    """

    def __init__(self, now_s: float) -> None:
        """Begin at ``now_s`` (monotonic)."""
        self._young_s = now_s
        self._old_s = now_s

    def due(self, now_s: float, *, idle: bool) -> int | None:
        """The oldest generation to collect now, or None.

        Args:
            now_s: monotonic clock.
            idle: whether no candle waits.
        """
        since_s = now_s - self._young_s
        if since_s < (_YOUNG_S if idle else _PATIENCE_S):
            return None
        self._young_s = now_s
        if now_s - self._old_s < _OLD_S:
            return 1
        self._old_s = now_s
        return 2

    def collect(self, now_s: float, *, idle: bool) -> None:
        """Collect what is due."""
        generation = self.due(now_s, idle=idle)
        if generation is not None:
            gc.collect(generation)


@contextmanager
def no_gc() -> Iterator[None]:
    """Within, nothing is collected, and what was made within is never looked at again.

    For imports: they make hundreds of thousands of objects that stay. Looking for garbage among
    them, again and again, took a quarter of a start.
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
    """Within, nothing is collected but on demand, and what exists already is left alone."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
