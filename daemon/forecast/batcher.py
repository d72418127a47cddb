"""Hold closed candles until the next batch takes them all. No I/O, no timer."""

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
    """Candles that wait for the next batch, at most one a symbol.

    Candles that close while a batch runs are the next batch; no timer delays it. A newer candle
    displaces one of the same symbol that still waits, since the older one's forecast would have
    expired. The caller receives the displaced one and counts it.
    """

    def __init__(self, max_batch: int) -> None:
        """Start empty; a batch has at most ``max_batch`` candles."""
        self._max_batch = max_batch
        self._ready: dict[int, Ready] = {}

    def __len__(self) -> int:
        """Candles waiting, at most one a symbol."""
        return len(self._ready)

    def add(self, slot: int, candle: Candle) -> Ready | None:
        """Hold a closed candle; returns the older one that it displaced, if any."""
        older = self._ready.pop(slot, None)
        self._ready[slot] = Ready(slot, candle)
        return older

    def discard(self, slot: int) -> Ready | None:
        """Remove the waiting candle of a symbol, whose window is no longer whole."""
        return self._ready.pop(slot, None)

    def take_batch(self) -> list[Ready]:
        """Everything that is ready, oldest arrival first, at most ``max_batch``."""
        if len(self._ready) <= self._max_batch:
            batch = list(self._ready.values())
            self._ready.clear()
            return batch
        batch = [self._ready[slot] for slot in list(self._ready)[: self._max_batch]]
        for ready in batch:
            del self._ready[ready.slot]
        return batch
