"""What waits for the broker: newest per key, bounded, never stale. No I/O, no clock."""

from __future__ import annotations

from typing import Final, NamedTuple

OUTBOX_SIZE: Final = 4_096
"""Messages that the daemon keeps at most: the newest of each symbol, for twice the symbols that one
daemon was measured with."""


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

    def is_valid(self, now_ms: int) -> bool:
        """Whether it may still be sent."""
        return self.valid_until_ms is None or now_ms < self.valid_until_ms


class Outbox:
    """Holds at most one message a key, and at most ``size`` of them.

    A newer message takes the place of an older one of its key; when the box is full the oldest
    message goes; one that expired while it waited is never handed out. Whoever calls is given
    what was dropped, so that it can be counted. What was handed out is on its way until it is
    said to have `arrived`; the last retained one of each key is remembered, so that a broker which
    lost its memory can be given it again, byte for byte.
    """

    def __init__(self, size: int) -> None:
        """Create an empty outbox for ``size`` messages."""
        self._size = size
        self._waiting: dict[str, Outgoing] = {}
        # By identity: of one key there may be an older and a newer one.
        self._on_its_way: dict[int, Outgoing] = {}
        self._last: dict[str, Outgoing] = {}

    def __len__(self) -> int:
        """Messages waiting."""
        return len(self._waiting)

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return not self._waiting and not self._on_its_way

    def offer(self, message: Outgoing) -> Outgoing | None:
        """Put a message behind all others; returns the one that had to go for it, if any."""
        dropped = self._waiting.pop(message.key, None)
        if dropped is None and len(self._waiting) >= self._size:
            if not message.qos:
                # Nobody is promised it: it takes no other's place.
                return message
            dropped = self._waiting.pop(next(iter(self._waiting)))
        self._waiting[message.key] = message
        return dropped

    def take(self, now_ms: int, most: int) -> tuple[list[Outgoing], list[Outgoing]]:
        """Hand out up to ``most`` messages, oldest first.

        Returns:
            The messages that are valid at ``now_ms``, and those found expired on the way.
        """
        valid: list[Outgoing] = []
        expired: list[Outgoing] = []
        # Found first, removed afterwards: a dict's first key is the dearer, the more went before.
        for message in self._waiting.values():
            if len(valid) == most:
                break
            (valid if message.is_valid(now_ms) else expired).append(message)
        if len(valid) + len(expired) == len(self._waiting):
            self._waiting.clear()
        else:
            for message in (*valid, *expired):
                del self._waiting[message.key]
        self._on_its_way |= {id(message): message for message in valid}
        return valid, expired

    def arrived(self, message: Outgoing, *, taken: bool = True) -> None:
        """Note the broker's answer to a message that was handed out: it was ``taken`` or denied."""
        known = self._on_its_way.pop(id(message), None)
        if known is None or not message.retain or not taken:
            return
        self._last.pop(message.key, None)
        self._last[message.key] = message
        if len(self._last) > self._size:
            del self._last[next(iter(self._last))]

    def repeat(self, now_ms: int) -> list[Outgoing]:
        """Queue again what was on its way, then what a new broker should know.

        Messages that expired or that a newer one waits for to replace are left out.

        Returns:
            What was on its way and had to go.
        """
        under_way = [message for message in self._on_its_way.values() if message.qos > 0]
        self._on_its_way.clear()
        lost = {m.key: m for m in under_way if m.key not in self._waiting}
        dropped = [m for m in under_way if lost.get(m.key) is not m]
        self._waiting = lost | self._waiting
        while len(self._waiting) > self._size:
            dropped.append(self._waiting.pop(next(iter(self._waiting))))
        self._last = {key: m for key, m in self._last.items() if m.is_valid(now_ms)}
        for key, message in self._last.items():
            if len(self._waiting) < self._size:
                # Its fate is settled: what becomes of a repetition is not a forecast's.
                self._waiting.setdefault(key, message._replace(is_forecast=False))
        return dropped
