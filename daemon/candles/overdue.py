"""Which candles should have come by now, and when to ask the exchange for them. No I/O, no clock.

An exchange may close a quiet market's candle only with the next trade, or leave it out altogether.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.candles.closing import grace_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.candles.window import Window
    from model.core.candle import Timeframe

_AGAIN_MS: Final = 2_000
_SELDOM_MS: Final = 15_000
_SELDOM_CANDLES: Final = 4
"""Of short candles, more than so many do not close between two questions."""


class _Turn(NamedTuple):
    """When a symbol's missing candle is asked for next, and how long to wait after that."""

    open_ms: int
    at_ms: int
    pause_ms: int


class Overdue:
    """Names the symbols to ask for: soon after the boundary and grace, then ever more seldom."""

    def __init__(self, timeframe: Timeframe) -> None:
        """Start with nothing asked.

        Args:
            timeframe: the grid.
        """
        self._step_ms = timeframe.ms
        self._grace_ms = grace_ms(timeframe)
        self._again_ms = min(_AGAIN_MS, self._grace_ms)
        self._seldom_ms = min(_SELDOM_MS, _SELDOM_CANDLES * timeframe.ms)
        self._turns: dict[str, _Turn] = {}

    def due(self, windows: Iterable[Window], now_ms: int) -> list[str]:
        """Symbols to ask for when the exchange's clock shows at least ``now_ms`` (Unix ms)."""
        latest_ms = now_ms - self._step_ms - self._grace_ms
        asked = []
        for window in windows:
            open_ms = window.next_open_ms
            if open_ms is None or open_ms > latest_ms:
                continue
            turn = self._turns.get(window.symbol)
            if turn is None or turn.open_ms != open_ms:
                turn = _Turn(open_ms, now_ms, self._again_ms)
            if turn.at_ms <= now_ms:
                asked.append(window.symbol)
                pause_ms = min(2 * turn.pause_ms, self._seldom_ms)
                turn = _Turn(open_ms, now_ms + turn.pause_ms, pause_ms)
            self._turns[window.symbol] = turn
        return asked
