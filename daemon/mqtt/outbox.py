"""Queue the newest message per key for the broker, bounded and never expired. No I/O, no clock."""

from __future__ import annotations

from typing import Final, NamedTuple

OUTBOX_SIZE: Final = 4_096
"""Messages that the daemon keeps at most: the newest of each symbol, for twice the symbols that one
daemon was measured with."""


class Outgoing(NamedTuple):
    """One MQTT message to publish.

    Attributes:
        key: a newer message replaces a waiting one of the same key; a symbol's forecasts share one.
        topic: of the message.
        payload: the encoded message.
        qos: 0 or 1.
        retain: whether the broker keeps it for later subscribers.
        valid_until_ms: wall clock after which it must not be sent; None if it never expires.
        received_s: monotonic arrival of the closing candle that caused it.
        late: whether it was ready only after the latency budget.
        is_forecast: whether it is counted as a published or dropped forecast.
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

    def is_valid(self, now_ms: int) -> bool:
        """Whether it may still be sent."""
        return self.valid_until_ms is None or now_ms < self.valid_until_ms


class Outbox:
    """Holds at most one message a key, and at most ``size`` of them.

    A newer message replaces an older one of its key. When the outbox is full, the oldest message
    is dropped. An expired message is never handed out. Dropped messages are returned to the caller,
    which counts them. A message that was handed out is in flight until `on_answered`. The last
    retained one of each key is kept: a broker that lost its state receives it again, byte for byte.
    """

    def __init__(self, size: int) -> None:
        """Create an empty outbox for ``size`` messages."""
        self._size = size
        # Not handed out, by key, oldest first.
        self._waiting: dict[str, Outgoing] = {}
        # Handed out and not answered, by identity: two messages may share a key.
        self._in_flight: dict[int, Outgoing] = {}
        # The last retained message that the broker has accepted, by key.
        self._last_acknowledged: dict[str, Outgoing] = {}

    def __len__(self) -> int:
        """Messages waiting."""
        return len(self._waiting)

    @property
    def is_drained(self) -> bool:
        """Whether no message waits or is in flight."""
        return not self._waiting and not self._in_flight

    def offer(self, message: Outgoing) -> Outgoing | None:
        """Append a message; returns the one that was dropped for it, None if none was."""
        dropped = self._waiting.pop(message.key, None)
        if dropped is None and len(self._waiting) >= self._size:
            if not message.qos:
                # QoS 0 promises no delivery, so it replaces no other message.
                return message
            dropped = self._waiting.pop(next(iter(self._waiting)))
        self._waiting[message.key] = message
        return dropped

    def take_batch(self, now_ms: int, limit: int) -> tuple[list[Outgoing], list[Outgoing]]:
        """Hand out up to ``limit`` messages, oldest first.

        Returns:
            The messages that are valid at ``now_ms`` (Unix milliseconds), and the expired ones
            that were removed before them.
        """
        valid: list[Outgoing] = []
        expired: list[Outgoing] = []
        # Collected first and removed afterwards: finding a dict's first key becomes slower with
        # every key that was removed before it.
        for message in self._waiting.values():
            if len(valid) == limit:
                break
            (valid if message.is_valid(now_ms) else expired).append(message)
        if len(valid) + len(expired) == len(self._waiting):
            self._waiting.clear()
        else:
            for message in (*valid, *expired):
                del self._waiting[message.key]
        self._in_flight |= {id(message): message for message in valid}
        return valid, expired

    def on_answered(self, message: Outgoing, *, acknowledged: bool = True) -> None:
        """Note that the broker has acknowledged or denied a message that was handed out."""
        known = self._in_flight.pop(id(message), None)
        if known is None or not message.retain or not acknowledged:
            return
        self._last_acknowledged.pop(message.key, None)
        self._last_acknowledged[message.key] = message
        if len(self._last_acknowledged) > self._size:
            del self._last_acknowledged[next(iter(self._last_acknowledged))]

    def requeue(self, now_ms: int) -> list[Outgoing]:
        """Queue what a new connection has to send: messages in flight, then retained ones.

        Retained messages that have expired, and those that a waiting one replaces, are left out.

        Returns:
            The messages in flight that were dropped.
        """
        unacknowledged = [message for message in self._in_flight.values() if message.qos > 0]
        self._in_flight.clear()
        resent = {m.key: m for m in unacknowledged if m.key not in self._waiting}
        dropped = [m for m in unacknowledged if resent.get(m.key) is not m]
        self._waiting = resent | self._waiting
        while len(self._waiting) > self._size:
            dropped.append(self._waiting.pop(next(iter(self._waiting))))
        self._last_acknowledged = {
            key: m for key, m in self._last_acknowledged.items() if m.is_valid(now_ms)
        }
        for key, message in self._last_acknowledged.items():
            if len(self._waiting) < self._size:
                # It was counted when it was acknowledged.
                self._waiting.setdefault(key, message._replace(is_forecast=False))
        return dropped
