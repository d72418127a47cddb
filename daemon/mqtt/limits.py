"""Track which MQTT features the broker supports. No I/O, no clock."""

from __future__ import annotations

from typing import Final, NamedTuple

_MAX_CLOSES: Final = 3
"""Connections closed early before less is requested; a restarting broker closes one or two."""

_MAX_CLOSES_PROVEN: Final = 20
"""The same for a broker that has acknowledged a message without limits: it is more likely down
than reconfigured."""


class Limits(NamedTuple):
    """Which optional features of a broker may be used.

    Attributes:
        qos: the highest quality of service that it accepts, 0 or 1.
        retains: whether it keeps retained messages.
    """

    qos: int = 1
    retains: bool = True

    def within(self, other: Limits) -> Limits:
        """The features that both allow."""
        return Limits(min(self.qos, other.qos), self.retains and other.retains)

    def describe(self) -> str:
        """Name the missing features and their consequences; empty if none is missing."""
        parts = []
        if not self.retains:
            parts.append("keeps no retained messages: a new subscriber waits for the next ones")
        if not self.qos:
            parts.append("takes QoS 0 only: a message counts as published once it is sent")
        return ", and ".join(parts)


NO_LIMITS: Final = Limits()
NO_RETAIN: Final = Limits(retains=False)
NO_QOS_1: Final = Limits(qos=0)
_STEPS: Final = (NO_LIMITS, NO_RETAIN, NO_QOS_1.within(NO_RETAIN))


class Negotiation:
    """Decides which features the next connection uses, from how the earlier ones ended.

    A broker of MQTT 5 names what it does not support. Others close the connection without a
    reason, as every broker of version 3.1.1 has to. Then fewer features are used step by step,
    and all of them again after the last step.
    """

    def __init__(self, max_closes: int = _MAX_CLOSES) -> None:
        """Start with all features.

        Args:
            max_closes: connections that the broker may close before a feature is given up.
        """
        self._max_closes = max_closes
        self.reset()

    def reset(self) -> None:
        """Use all features again: the broker may have been reconfigured."""
        # What the broker has named as supported.
        self._named = NO_LIMITS
        # Connections closed early since the reset.
        self._closes = 0

    @property
    def limits(self) -> Limits:
        """Which features the next connection may use."""
        return self._named.within(_STEPS[self._closes // self._max_closes % len(_STEPS)])

    @property
    def is_guessing(self) -> bool:
        """Whether fewer features are used than the broker has named as supported."""
        return self.limits != self._named

    def on_unsupported(self, supported: Limits) -> bool:
        """Apply the limits that the broker named; False if they were applied already."""
        before = self.limits
        self._named = self._named.within(supported)
        return self.limits != before

    def on_acknowledged(self) -> None:
        """Note that the broker has acknowledged messages within the current limits."""
        if self.limits == NO_LIMITS:
            self._max_closes = max(self._max_closes, _MAX_CLOSES_PROVEN)

    def on_closed_early(self) -> bool:
        """Note a connection that the broker closed before it acknowledged a message.

        Returns:
            Whether there is a step that has not been tried.
        """
        self._closes += 1
        return self._closes < self._max_closes * len(_STEPS)
