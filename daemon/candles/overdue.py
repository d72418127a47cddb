"""Decide which overdue candles to request from the exchange, and when. No I/O, no clock.

Without trades, an exchange may close a candle only with the next trade, or leave it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.candles.closing import grace_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.candles.window import Window
    from model.core.candle import Timeframe

_MIN_PAUSE_MS: Final = 2_000
_MAX_PAUSE_MS: Final = 15_000
_MAX_PAUSE_CANDLES: Final = 4
"""Upper bound of the pause between two requests where candles are short."""


class _Request(NamedTuple):
    """The next request of a symbol's overdue candle.

    Attributes:
        open_ms: when the candle opened.
        at_ms: when to request it.
        pause_ms: from this request to the one after it.
    """

    open_ms: int
    at_ms: int
    pause_ms: int


class OverdueCandles:
    """Names the symbols to request: soon after boundary and grace, then with doubling pauses."""

    def __init__(self, timeframe: Timeframe) -> None:
        """Start with nothing requested.

        Args:
            timeframe: the grid.
        """
        self._step_ms = timeframe.ms
        self._grace_ms = grace_ms(timeframe)
        self._min_pause_ms = min(_MIN_PAUSE_MS, self._grace_ms)
        self._max_pause_ms = min(_MAX_PAUSE_MS, _MAX_PAUSE_CANDLES * timeframe.ms)
        self._requests: dict[str, _Request] = {}

    def symbols_due(self, windows: Iterable[Window], now_ms: int) -> list[str]:
        """Symbols to request now.

        Args:
            windows: of all symbols.
            now_ms: lower bound of the exchange's time, Unix milliseconds.
        """
        latest_ms = now_ms - self._step_ms - self._grace_ms
        due = []
        for window in windows:
            open_ms = window.next_open_ms
            if open_ms is None or open_ms > latest_ms:
                continue
            request = self._requests.get(window.symbol)
            if request is None or request.open_ms != open_ms:
                request = _Request(open_ms, now_ms, self._min_pause_ms)
            if request.at_ms <= now_ms:
                due.append(window.symbol)
                pause_ms = min(2 * request.pause_ms, self._max_pause_ms)
                request = _Request(open_ms, now_ms + request.pause_ms, pause_ms)
            self._requests[window.symbol] = request
        return due
