"""What waits for the broker: newest per key, bounded, never stale. No I/O, no clock."""

from __future__ import annotations

from typing import NamedTuple


class Outgoing(NamedTuple):
    """One MQTT message on its way.

    Attributes:
        key: what a newer message replaces it by; one symbol's forecasts share a key.
        topic: where it goes.
        payload: the encoded message.
        qos: 0 or 1.
        retain: whether the broker keeps it for later subscribers.
        valid_until_ms: wall clock after which it must not be sent; None for "always valid".
        received_s: monotonic arrival of the closing candle that caused it.
        late: whether it was ready only after the latency budget.
        is_forecast: whether its fate counts as a forecast's.
    """

    key: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    valid_until_ms: int | None = None
    received_s: float = 0.0
    late: bool = False
    is_forecast: bool = False

    def expiry_s(self, now_ms: int) -> int | None:
        """Remaining validity, rounded up, in seconds; None if unlimited, below 1 if expired."""
        if self.valid_until_ms is None:
            return None
        return -((now_ms - self.valid_until_ms) // 1000)


class Outbox:
    """Holds at most one message a key, and at most ``size`` of them.

    A newer message takes the place of an older one of its key; when the box is full the oldest
    message goes; one that expired while it waited is never handed out. Whoever calls is given
    what was dropped, so that it can be counted. The last retained message of each key is
    remembered, so that a broker which lost its memory can be given it again, byte for byte.
    """

    def __init__(self, size: int) -> None:
        """Create an empty outbox for ``size`` messages."""
        self._size = size
        self._waiting: dict[str, Outgoing] = {}
        self._last: dict[str, Outgoing] = {}

    def __len__(self) -> int:
        """Messages waiting."""
        return len(self._waiting)

    def offer(self, message: Outgoing) -> Outgoing | None:
        """Put a message behind all others; returns the one that had to go for it, if any."""
        dropped = self._waiting.pop(message.key, None)
        if dropped is None and len(self._waiting) >= self._size:
            dropped = self._waiting.pop(next(iter(self._waiting)))
        self._waiting[message.key] = message
        if message.retain:
            self._last.pop(message.key, None)
            self._last[message.key] = message
            if len(self._last) > self._size:
                del self._last[next(iter(self._last))]
        return dropped

    def take(self, now_ms: int, most: int) -> tuple[list[Outgoing], list[Outgoing]]:
        """Hand out up to ``most`` messages, oldest first.

        Returns:
            The messages that are valid at ``now_ms``, and those found expired on the way.
        """
        valid: list[Outgoing] = []
        expired: list[Outgoing] = []
        while self._waiting and len(valid) < most:
            message = self._waiting.pop(next(iter(self._waiting)))
            expiry_s = message.expiry_s(now_ms)
            (valid if expiry_s is None or expiry_s >= 1 else expired).append(message)
        return valid, expired

    def repeat(self, now_ms: int) -> None:
        """Queue the last message of every key again, unless it expired or a newer one waits."""
        for key, message in list(self._last.items()):
            expiry_s = message.expiry_s(now_ms)
            if expiry_s is not None and expiry_s < 1:
                del self._last[key]
            else:
                self._waiting.setdefault(key, message)
