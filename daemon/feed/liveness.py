"""When silence is suspicious, and what tells a dead stream from a quiet market. No I/O, no clock.

Ping and pong say that a peer lives, not that it still sends. What counts is the last candle
update: after one and a half times the usual interval a symbol is suspected, the exchange is asked
by REST, and only if it knows of trades that the stream has kept to itself is the stream dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.candles.closing import LastTrade

_SHORTEST_S: Final = 5.0
"""Below, a busy machine would pass for a dead stream."""

_LONGEST_S: Final = 45.0
"""Exchanges that update candles do so at least this often while there are trades."""

_SUSPECT_AFTER: Final = 1.5
_AGAIN_AFTER: Final = 0.5
_PROBES: Final = 2
"""Symbols asked for in one round: enough to tell, few enough for everyone's budget."""


def expected_interval_s(timeframe_ms: int) -> float:
    """At least how often a stream of candles of that length speaks, seconds."""
    return min(max(timeframe_ms / 1e3, _SHORTEST_S), _LONGEST_S)


class LivenessMonitor:
    """Listens for silence on one connection."""

    def __init__(
        self, symbols: Iterable[str], interval_s: float, now_s: float, apart_s: float = 0.0
    ) -> None:
        """Begin to listen.

        Args:
            symbols: what is subscribed, in that order.
            interval_s: how often each should be heard of.
            now_s: monotonic clock.
            apart_s: pause between two subscriptions: what was not asked for yet is not silent.
        """
        self._interval_s = interval_s
        self._heard_s = {symbol: now_s + at * apart_s for at, symbol in enumerate(symbols)}
        self._opened_ms: dict[str, int] = {}
        self._asked: dict[str, LastTrade | None] = {}
        self._quiet_s: dict[str, float] = {}

    def heard(self, symbol: str, opened_ms: int, now_s: float) -> None:
        """Note an update of the candle of a symbol that opened at ``opened_ms``."""
        self._heard_s[symbol] = now_s
        self._opened_ms[symbol] = opened_ms
        if self._asked:
            self._asked.pop(symbol, None)

    def heard_s(self, symbol: str) -> float:
        """When the symbol was last heard of, monotonic clock."""
        return self._heard_s[symbol]

    def suspects(self, now_s: float) -> list[str]:
        """Silent symbols to ask the exchange about now, the liveliest first."""
        due = [symbol for symbol in self._heard_s if self._due_s(symbol) <= now_s]
        # Which was heard last is the most likely one to have traded since.
        due.sort(key=self.heard_s, reverse=True)
        return due[:_PROBES]

    def _due_s(self, symbol: str) -> float:
        # A stream that has never spoken cannot be compared with REST, only REST with itself.
        after = _SUSPECT_AFTER if symbol in self._opened_ms else _AGAIN_AFTER
        due_s = self._heard_s[symbol] + after * self._interval_s
        return max(due_s, self._quiet_s.get(symbol, due_s))

    def probed(self, symbol: str, seen: LastTrade | None, now_s: float) -> bool:
        """Compare with what REST says; ask again later.

        Args:
            symbol: one of `suspects`.
            seen: newest candle with trades in the exchange's history; None if it has none, or
                does not answer.
            now_s: monotonic clock.

        Returns:
            Whether the exchange knows of trades that the stream has not told: in a later candle,
            or since it was asked before. Volumes of stream and history are not compared: not
            every exchange counts them in the same unit.
        """
        first = symbol not in self._asked
        before = self._asked.get(symbol)
        self._asked[symbol] = seen or before
        after = _AGAIN_AFTER if first else _SUSPECT_AFTER
        self._quiet_s[symbol] = now_s + after * self._interval_s
        if seen is None:
            return False
        told_ms = self._opened_ms.get(symbol)
        later = told_ms is not None and seen[0] > told_ms
        return later or (before is not None and seen > before)
