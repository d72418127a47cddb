"""When to run: at once, with everything that is ready. No I/O, no timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from model.core.candle import Candle

MAX_BATCH: Final = 1_024
"""Symbols that the network runs in one call at most, as in `model.inference.engine`."""


class Ready(NamedTuple):
    """A closed candle that waits for its forecast.

    Attributes:
        slot: the symbol's row in every per-symbol array.
        candle: the candle that closed.
    """

    slot: int
    candle: Candle


class Batcher:
    """Collects closed candles until the pipeline is free to run them.

    What closes while a batch runs is the next batch; nothing ever waits for company. At most one
    candle a symbol is held: a newer one takes the place of one that was not run yet, because the
    older one's forecast would have expired with its arrival. The caller is given the displaced
    one, so that it can be counted.
    """

    def __init__(self, max_batch: int) -> None:
        """Create an empty batcher that hands out at most ``max_batch`` candles at once."""
        self._max_batch = max_batch
        self._ready: dict[int, Ready] = {}

    def __len__(self) -> int:
        """Candles waiting, at most one a symbol."""
        return len(self._ready)

    def add(self, slot: int, candle: Candle) -> Ready | None:
        """Take in a closed candle; returns the older one that it displaced, if any."""
        older = self._ready.pop(slot, None)
        self._ready[slot] = Ready(slot, candle)
        return older

    def discard(self, slot: int) -> Ready | None:
        """Give up what waits for a symbol, whose window is no longer whole."""
        return self._ready.pop(slot, None)

    def take(self) -> list[Ready]:
        """Everything that is ready, oldest arrival first, at most ``max_batch``."""
        if len(self._ready) <= self._max_batch:
            batch = list(self._ready.values())
            self._ready.clear()
            return batch
        batch = [self._ready[slot] for slot in list(self._ready)[: self._max_batch]]
        for ready in batch:
            del self._ready[ready.slot]
        return batch
