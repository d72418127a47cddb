"""Tell which symbols are forecast less often than their candles close. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_KEPT: Final = 5
"""Forecasts of a symbol that are looked at."""

_UNFORECAST: Final = 3
"""So many candles in a row without a forecast are too many."""

_SHARE: Final = 0.75
"""Of its candles a symbol should be forecast after at least this share."""


class Cadence:
    """Remembers the targets of each symbol's last forecasts.

    One long pause is forgiven: the symbol was stale while it lasted, and it is over. A second one
    within a few forecasts is not.
    """

    def __init__(self, step_ms: int) -> None:
        """Start without any forecast.

        Args:
            step_ms: length of a candle.
        """
        self._step_ms = step_ms
        self._targets_ms: dict[str, deque[int]] = {}

    def expect(self, symbol: str, target_ms: int) -> None:
        """Note that the symbol is to be forecast; what counts is the first time."""
        if symbol not in self._targets_ms:
            self._targets_ms[symbol] = deque([target_ms - self._step_ms], _KEPT)

    def left(self, forecasts: Iterable[tuple[str, int]]) -> None:
        """Note forecasts that have left: symbols and targets (Unix milliseconds)."""
        for symbol, target_ms in forecasts:
            self.expect(symbol, target_ms)
            self._targets_ms[symbol].append(target_ms)

    def forget_all_but(self, symbols: Collection[str]) -> None:
        """Forget every other symbol."""
        for symbol in self._targets_ms.keys() - set(symbols):
            del self._targets_ms[symbol]

    def is_slow(self, symbol: str, closed_ms: int) -> bool:
        """Whether the symbol is forecast less often than its candles close.

        Args:
            symbol: ccxt symbol.
            closed_ms: when its newest candle closed, Unix milliseconds.
        """
        targets_ms = self._targets_ms.get(symbol)
        if targets_ms is None:
            return False
        if closed_ms + self._step_ms - targets_ms[-1] >= _UNFORECAST * self._step_ms:
            return True
        candles = [(after - before) / self._step_ms for before, after in pairwise(targets_ms)]
        if len(candles) < 2:  # noqa: PLR2004 - one pause may be forgiven
            return False
        return len(candles) - 1 < _SHARE * (sum(candles) - max(candles))
