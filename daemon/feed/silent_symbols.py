"""Of which symbols the stream says nothing though they are traded. No I/O, no clock.

While a stream is silent the exchange's history keeps filling the windows, and everything looks
well. It is not: forecasts come later, and no candle is seen before its close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.feed.liveness import expected_interval_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.core.candle import Candle, Timeframe

_LEAST_MS: Final = 10_000
"""So long may a stream be silent that is being connected anew, however short its candles are."""

_LOST_AFTER: Final = 1.5
"""Expected intervals after which a connection that cannot be had is more than a short loss."""


class Hearing:
    """Compares what the stream tells of each symbol with what the history knows."""

    def __init__(self, timeframe: Timeframe) -> None:
        """Start without symbols.

        Args:
            timeframe: the grid of the candles.
        """
        self._timeframe = timeframe
        self._missed_ms = max(timeframe.ms, _LEAST_MS)
        self._patience_s = _LOST_AFTER * expected_interval_s(timeframe.ms)
        self._told_ms: dict[str, int] = {}
        self._heard_s: dict[str, float] = {}
        self._traded_ms: dict[str, int] = {}
        self._deaf: set[str] = set()

    def expect(self, symbols: Iterable[str], now_ms: int, now_s: float) -> None:
        """Listen to these symbols and to no others; of new ones nothing is missed yet.

        Args:
            symbols: ccxt symbols.
            now_ms: wall clock.
            now_s: monotonic clock.
        """
        wanted = list(symbols)
        forming_ms = self._timeframe.floor(now_ms)
        self._told_ms = {symbol: self._told_ms.get(symbol, forming_ms) for symbol in wanted}
        self._heard_s = {symbol: self._heard_s.get(symbol, now_s) for symbol in wanted}
        self._traded_ms = {s: at for s, at in self._traded_ms.items() if s in self._told_ms}
        self._deaf.intersection_update(wanted)

    def told(self, candle: Candle) -> None:
        """Note a candle, closed or not, from the stream."""
        symbol = candle.symbol
        self._heard_s[symbol] = candle.received_s
        if candle.open_ms > self._told_ms.get(symbol, 0):
            self._told_ms[symbol] = candle.open_ms
        if self._deaf:
            self._deaf.discard(symbol)

    def recorded(self, candles: Sequence[Candle]) -> None:
        """Note closed candles of one symbol, ascending, from the exchange's history."""
        for candle in reversed(candles):
            if candle.ohlcv.volume > 0.0 and not candle.filled:
                self._traded_ms[candle.symbol] = candle.open_ms
                break

    def deaf(self, symbols: Iterable[str]) -> None:
        """Note that a stream has kept trades of these to itself."""
        self._deaf.update(symbol for symbol in symbols if symbol in self._told_ms)

    def lost(self, symbols: Iterable[str], now_s: float) -> None:
        """Note that there is no connection for these at ``now_s`` (monotonic)."""
        self.deaf(
            symbol
            for symbol in symbols
            if now_s - self._heard_s.get(symbol, now_s) > self._patience_s
        )

    def unheard(self) -> set[str]:
        """Symbols of which the stream has missed a traded candle, or can tell nothing."""
        missed = {
            symbol
            for symbol, traded_ms in self._traded_ms.items()
            if traded_ms - self._told_ms.get(symbol, traded_ms) >= self._missed_ms
        }
        return missed | self._deaf
