"""Remember for a while which topics the broker denies. No I/O, no clock."""

from __future__ import annotations

from typing import Final

_DENIED_S: Final = 60.0
"""A denied topic is tried again after this time; some brokers close the connection over it."""


class DeniedTopics:
    """Topics that are not published to, each for a minute after the broker denied it.

    Attributes:
        until_s: until when each topic is denied, monotonic seconds; nearly always empty.
    """

    def __init__(self) -> None:
        """Start without denied topics."""
        self.until_s: dict[str, float] = {}

    def add(self, topic: str, now_s: float) -> None:
        """Note that the broker has denied a topic."""
        self.until_s[topic] = now_s + _DENIED_S

    def is_denied(self, topic: str, now_s: float) -> bool:
        """Whether a topic was denied within the last minute."""
        if now_s >= self.until_s.get(topic, 0.0):
            self.until_s.pop(topic, None)
        return topic in self.until_s
