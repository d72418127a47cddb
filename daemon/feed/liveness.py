"""Detect stalled streams: symbols without updates although the exchange has trades of them.

No I/O, no clock. Ping and pong show that a peer lives, not that it still sends. What counts is the
last candle update. After one and a half times the expected interval a symbol is probed: the
exchange is asked by REST. Only if it has trades that the stream has not sent is the stream stalled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.candles.history_page import CandleVolume

_MIN_INTERVAL_S: Final = 5.0
"""With a shorter one, a busy machine would be taken for a stalled stream."""

_MAX_INTERVAL_S: Final = 45.0
"""Exchanges that update candles do so at least this often while there are trades."""

_PROBE_AFTER: Final = 1.5
"""Expected intervals without an update after which a symbol is probed."""

_PROBE_AGAIN_AFTER: Final = 0.5
"""Expected intervals after which REST is compared with its own earlier answer."""

_MAX_PROBES: Final = 2
"""Symbols probed in one round: enough to decide, few enough for the rate limit."""


def expected_interval_s(timeframe_ms: int) -> float:
    """Longest usual time between two updates of a candle of that length, seconds."""
    return min(max(timeframe_ms / 1e3, _MIN_INTERVAL_S), _MAX_INTERVAL_S)


class LivenessMonitor:
    """Decides which symbols of one connection to probe, and what the answers show."""

    def __init__(
        self, symbols: Iterable[str], interval_s: float, now_s: float, apart_s: float = 0.0
    ) -> None:
        """Start with subscriptions that begin now.

        Args:
            symbols: what is subscribed, in that order.
            interval_s: expected interval between updates of a symbol.
            now_s: monotonic clock.
            apart_s: pause between two subscriptions; a symbol counts as silent only from its own.
        """
        self._interval_s = interval_s
        # Per symbol: when its last update came, monotonic clock.
        self._last_update_s = {symbol: now_s + at * apart_s for at, symbol in enumerate(symbols)}
        # Per symbol: opening time of the candle of its last update, Unix milliseconds.
        self._open_ms: dict[str, int] = {}
        # Per symbol probed since its last update: the newest candle that REST has shown.
        self._probed: dict[str, CandleVolume | None] = {}
        # Per symbol: no probe before this time, monotonic clock.
        self._next_probe_s: dict[str, float] = {}

    def on_update(self, symbol: str, open_ms: int, now_s: float) -> None:
        """Note an update of the symbol's candle that opened at ``open_ms``."""
        self._last_update_s[symbol] = now_s
        self._open_ms[symbol] = open_ms
        if self._probed:
            self._probed.pop(symbol, None)

    def last_update_s(self, symbol: str) -> float:
        """When the symbol's last update came, monotonic clock."""
        return self._last_update_s[symbol]

    def symbols_to_probe(self, now_s: float) -> list[str]:
        """Silent symbols to ask the exchange about now, the most recently updated first."""
        due = [symbol for symbol in self._last_update_s if self._due_s(symbol) <= now_s]
        # The last one updated is the most likely one to have traded since.
        due.sort(key=self.last_update_s, reverse=True)
        return due[:_MAX_PROBES]

    def _due_s(self, symbol: str) -> float:
        # Without any update there is nothing to compare with REST but REST itself.
        after = _PROBE_AFTER if symbol in self._open_ms else _PROBE_AGAIN_AFTER
        due_s = self._last_update_s[symbol] + after * self._interval_s
        return max(due_s, self._next_probe_s.get(symbol, due_s))

    def on_probe(self, symbol: str, newest: CandleVolume | None, now_s: float) -> bool:
        """Compare the stream with an answer of REST and plan the next probe.

        Args:
            symbol: one of `symbols_to_probe`.
            newest: newest candle with trades in the exchange's history; None if it has none, or
                does not answer.
            now_s: monotonic clock.

        Returns:
            Whether the exchange has trades that the stream has not sent: in a later candle, or
            since the probe before. Volumes of stream and history are not compared: not every
            exchange counts them in the same unit.
        """
        is_first = symbol not in self._probed
        before = self._probed.get(symbol)
        self._probed[symbol] = newest or before
        after = _PROBE_AGAIN_AFTER if is_first else _PROBE_AFTER
        self._next_probe_s[symbol] = now_s + after * self._interval_s
        if newest is None:
            return False
        sent_ms = self._open_ms.get(symbol)
        is_later = sent_ms is not None and newest.open_ms > sent_ms
        return is_later or (before is not None and newest > before)
