"""Queue what is to be published, and count published, denied and dropped messages."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from daemon.mqtt.denied_topics import DeniedTopics
from daemon.mqtt.refusals import NOT_AUTHORIZED, TOO_LARGE, denial_advice
from daemon.mqtt.status import InstanceStatus
from daemon.mqtt.topics import ROOT
from model.core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.metrics.metrics import Metrics
    from daemon.mqtt.outbox import Outbox, Outgoing
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.mqtt")


class SendQueue:
    """The outbox and the status of an instance, and the broker's answers to them.

    Attributes:
        status: what is published on the status topic.
        wakeup: set when there is something to send or space to send it.
        drained: set when nothing waits and nothing is in flight.
        fatal: why the daemon cannot go on; None while it can.
    """

    def __init__(
        self, *, user: str, instance: str, outbox: Outbox, clock: Clock, metrics: Metrics
    ) -> None:
        """Start with an empty queue.

        Args:
            user: the client as the log names it, such as ``user 'me'``.
            instance: this daemon's name, part of its status topic.
            outbox: holds the waiting messages.
            clock: the injected clock.
            metrics: latencies and outcomes.
        """
        self.status = InstanceStatus(instance)
        self.wakeup = asyncio.Event()
        self.drained = asyncio.Event()
        self.fatal: BrokerError | None = None
        self._user = user
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics
        self._denied_topics = DeniedTopics()

    def offer(self, message: Outgoing) -> None:
        """Queue a message, unless the broker denies its topic; a full outbox drops the oldest."""
        denied = self._denied_topics
        if denied.until_s and denied.is_denied(message.topic, self._clock.monotonic()):
            self._count_dropped([message])
            return
        dropped = self._outbox.offer(message)
        if dropped is not None:
            self._count_dropped([dropped])
        self.wake()

    def wake(self) -> None:
        """Note that there is something to send."""
        self.drained.clear()
        self.wakeup.set()

    def send_status(self) -> None:
        """Queue the status, even if it has not changed."""
        self.status.is_due = True
        self.wake()

    def on_connected(self) -> None:
        """Queue messages in flight, retained ones and the status for a new connection."""
        self._count_dropped(self._outbox.requeue(self._clock.wall_ms()))
        self.send_status()

    def take_batch(self, limit: int) -> list[Outgoing]:
        """Hand out up to ``limit`` messages; the status goes first and alone."""
        if self.status.is_due:
            return [self.status.take_message()]
        messages, expired = self._outbox.take_batch(self._clock.wall_ms(), limit)
        self._count_dropped(expired)
        return messages

    def on_acknowledged(self, messages: Sequence[tuple[Outgoing, float]]) -> None:
        """Count messages that the broker has accepted.

        Args:
            messages: each with the time it was sent, monotonic seconds.
        """
        now_s = self._clock.monotonic()
        for message, sent_s in messages:
            self._outbox.on_answered(message)
            if message.is_forecast:
                self._metrics.forecasts.on_published(
                    now_s - sent_s, now_s - message.received_s, message.late
                )
        self.set_drained()

    def on_denied(self, message: Outgoing, reason: str) -> None:
        """Drop a denied message, and what follows on its topic for a while."""
        self._outbox.on_answered(message, acknowledged=False)
        self._metrics.broker.denied.inc()
        self._count_dropped([message])
        advice = denial_advice(reason, self._user, ROOT, len(message.payload))
        line = f"the MQTT broker denies publishing to {message.topic} ({reason}); {advice}"
        is_status = message.key == self.status.topic
        self.status.is_denied |= is_status and reason != TOO_LARGE
        if is_status and reason == NOT_AUTHORIZED:
            # Not every broker closes the connection over it.
            self.fatal = BrokerError(line)
            self.wakeup.set()
        elif not self._denied_topics.until_s:
            log.error("%s", line)
        self._denied_topics.add(message.topic, self._clock.monotonic())
        self.set_drained()

    def set_drained(self) -> None:
        """Set `drained` if nothing waits and nothing is in flight."""
        if self._outbox.is_drained and not self.status.is_due:
            self.drained.set()

    def _count_dropped(self, messages: Sequence[Outgoing]) -> None:
        if messages:
            self._metrics.forecasts.count_dropped(sum(message.is_forecast for message in messages))
