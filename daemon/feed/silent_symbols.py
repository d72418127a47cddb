"""Track symbols that are traded but that the stream sends nothing about. No I/O, no clock.

While a stream is silent the exchange's history keeps filling the windows, and everything looks
healthy. It is not: forecasts come later, and no candle is seen before its close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.feed.liveness import expected_interval_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.core.candle import Candle, Timeframe

_MIN_SILENCE_MS: Final = 10_000
"""A stream may be silent for this long while it reconnects, however short its candles are."""

_LOST_AFTER: Final = 1.5
"""Expected intervals after which a missing connection is more than a short loss."""


class SilentSymbols:
    """Compares the newest candle of each symbol by the stream with the newest by REST."""

    def __init__(self, timeframe: Timeframe) -> None:
        """Start without symbols.

        Args:
            timeframe: the grid of the candles.
        """
        self._timeframe = timeframe
        # How far the stream may lag behind the history, milliseconds.
        self._max_lag_ms = max(timeframe.ms, _MIN_SILENCE_MS)
        self._max_loss_s = _LOST_AFTER * expected_interval_s(timeframe.ms)
        # Per symbol: opening time of the newest candle by the stream, Unix milliseconds.
        self._streamed_ms: dict[str, int] = {}
        # Per symbol: when its last update came, monotonic clock.
        self._last_update_s: dict[str, float] = {}
        # Per symbol: opening time of the newest candle with trades by REST, Unix milliseconds.
        self._traded_ms: dict[str, int] = {}
        # Symbols without a working connection since their last update.
        self._stalled: set[str] = set()

    def set_symbols(self, symbols: Iterable[str], now_ms: int, now_s: float) -> None:
        """Track these symbols and no others; new ones start as not silent.

        Args:
            symbols: ccxt symbols.
            now_ms: wall clock.
            now_s: monotonic clock.
        """
        wanted = list(symbols)
        forming_ms = self._timeframe.floor(now_ms)
        self._streamed_ms = {symbol: self._streamed_ms.get(symbol, forming_ms) for symbol in wanted}
        self._last_update_s = {symbol: self._last_update_s.get(symbol, now_s) for symbol in wanted}
        self._traded_ms = {s: at for s, at in self._traded_ms.items() if s in self._streamed_ms}
        self._stalled.intersection_update(wanted)

    def on_update(self, candle: Candle) -> None:
        """Note a candle, closed or not, from the stream."""
        symbol = candle.symbol
        self._last_update_s[symbol] = candle.received_s
        if candle.open_ms > self._streamed_ms.get(symbol, 0):
            self._streamed_ms[symbol] = candle.open_ms
        if self._stalled:
            self._stalled.discard(symbol)

    def on_history(self, candles: Sequence[Candle]) -> None:
        """Note closed candles of one symbol, ascending, from the exchange's history."""
        for candle in reversed(candles):
            if candle.ohlcv.volume > 0.0 and not candle.filled:
                self._traded_ms[candle.symbol] = candle.open_ms
                break

    def on_stalled(self, symbols: Iterable[str]) -> None:
        """Note that a connection did not send trades of these."""
        self._stalled.update(symbol for symbol in symbols if symbol in self._streamed_ms)

    def on_connection_lost(self, symbols: Iterable[str], now_s: float) -> None:
        """Note that there is no connection for these at ``now_s`` (monotonic)."""
        self.on_stalled(
            symbol
            for symbol in symbols
            if now_s - self._last_update_s.get(symbol, now_s) > self._max_loss_s
        )

    def symbols(self) -> set[str]:
        """Symbols of which the stream has missed a traded candle, or cannot send any."""
        missed = {
            symbol
            for symbol, traded_ms in self._traded_ms.items()
            if traded_ms - self._streamed_ms.get(symbol, traded_ms) >= self._max_lag_ms
        }
        return missed | self._stalled
