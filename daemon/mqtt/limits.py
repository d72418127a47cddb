"""What an MQTT broker offers a publisher, and how to find out. No I/O, no clock."""

from __future__ import annotations

from typing import Final, NamedTuple

_HANG_UPS: Final = 3
"""A broker that restarts hangs up once or twice as well."""

_HANG_UPS_OF_A_KNOWN_BROKER: Final = 20
"""A broker that has taken everything is more likely away than set up anew."""


class Limits(NamedTuple):
    """What may be asked of a broker.

    Attributes:
        qos: the highest quality of service that it takes, 0 or 1.
        retains: whether it keeps retained messages.
    """

    qos: int = 1
    retains: bool = True

    def within(self, other: Limits) -> Limits:
        """What both allow."""
        return Limits(min(self.qos, other.qos), self.retains and other.retains)

    def in_words(self) -> str:
        """What the broker lacks and what that means; empty if it lacks nothing."""
        parts = []
        if not self.retains:
            parts.append("keeps no retained messages: a new subscriber waits for the next ones")
        if not self.qos:
            parts.append("takes QoS 0 only: a message counts as published once it is sent")
        return ", and ".join(parts)


EVERYTHING: Final = Limits()
NO_RETAIN: Final = Limits(retains=False)
NO_QOS_1: Final = Limits(qos=0)
_STEPS: Final = (EVERYTHING, NO_RETAIN, NO_QOS_1.within(NO_RETAIN))


class Negotiation:
    """Decides what the next connection asks for, from how the earlier ones ended.

    A broker of MQTT 5 names what it lacks. Others close the connection without a word, as every
    broker of version 3.1.1 has to; then less is asked for step by step, and everything again after
    the last step.
    """

    def __init__(self, patience: int = _HANG_UPS) -> None:
        """Begin with everything.

        Args:
            patience: connections that the broker may close before less is asked for.
        """
        self._patience = patience
        self.start_over()

    def start_over(self) -> None:
        """Ask for everything again: the broker may have been set up anew."""
        self._named = EVERYTHING
        self._hang_ups = 0

    @property
    def limits(self) -> Limits:
        """What the next connection may ask for."""
        return self._named.within(_STEPS[self._hang_ups // self._patience % len(_STEPS)])

    @property
    def is_guessing(self) -> bool:
        """Whether less is asked for than the broker has named."""
        return self.limits != self._named

    def refused(self, without: Limits) -> bool:
        """Heed what the broker named; False if that had been heeded already."""
        before = self.limits
        self._named = self._named.within(without)
        return self.limits != before

    def took(self) -> None:
        """Note that the broker has acknowledged messages within these limits."""
        if self.limits == EVERYTHING:
            self._patience = max(self._patience, _HANG_UPS_OF_A_KNOWN_BROKER)

    def hung_up(self) -> bool:
        """Note a connection that was closed before a message was acknowledged.

        Returns:
            Whether there is a step that has not been tried.
        """
        self._hang_ups += 1
        return self._hang_ups < self._patience * len(_STEPS)
