"""Detect symbols that are forecast less often than their candles close. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_MAX_KEPT: Final = 5
"""Newest forecasts of a symbol that count."""

_MAX_MISSED: Final = 3
"""This many candles in a row without a forecast make a symbol slow."""

_MIN_SHARE: Final = 0.75
"""Least share of its candles after which a symbol should be forecast."""


class Cadence:
    """Keeps the targets of each symbol's last forecasts.

    The longest pause does not count: the symbol was stale while it lasted, and it is over. A
    second one within a few forecasts counts.
    """

    def __init__(self, step_ms: int) -> None:
        """Start without any forecast.

        Args:
            step_ms: length of a candle.
        """
        self._step_ms = step_ms
        # Per symbol: targets of the newest forecasts, Unix milliseconds.
        self._targets_ms: dict[str, deque[int]] = {}

    def expect(self, symbol: str, target_ms: int) -> None:
        """Note that forecasts of the symbol are expected from now on; repeated calls do nothing."""
        if symbol not in self._targets_ms:
            self._targets_ms[symbol] = deque([target_ms - self._step_ms], _MAX_KEPT)

    def on_published(self, forecasts: Iterable[tuple[str, int]]) -> None:
        """Note published forecasts: symbols and targets (Unix milliseconds)."""
        for symbol, target_ms in forecasts:
            self.expect(symbol, target_ms)
            self._targets_ms[symbol].append(target_ms)

    def keep_only(self, symbols: Collection[str]) -> None:
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
        if closed_ms + self._step_ms - targets_ms[-1] >= _MAX_MISSED * self._step_ms:
            return True
        candles = [(after - before) / self._step_ms for before, after in pairwise(targets_ms)]
        if len(candles) < 2:  # noqa: PLR2004 - one pause does not count
            return False
        return len(candles) - 1 < _MIN_SHARE * (sum(candles) - max(candles))
