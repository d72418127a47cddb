"""Keep the state that this instance publishes on its status topic. No I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from daemon.mqtt.outbox import Outgoing
from daemon.mqtt.topics import status_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

_NO_SYMBOLS: Final[dict[str, list[str]]] = {"stale_symbols": [], "rest_only_symbols": []}


class InstanceStatus:
    """The status message of one instance, and whether it has to be sent.

    Attributes:
        topic: where it is published.
        is_due: whether it has to be sent.
        is_denied: whether the broker has denied the last one.
    """

    def __init__(self, instance: str) -> None:
        """Start without a state; `update` sets it.

        Args:
            instance: this daemon's name, part of the topic.
        """
        self.topic = status_topic(instance)
        self.is_due = False
        self.is_denied = False
        self._instance = instance
        # The document that is published.
        self._fields: dict[str, Any] = {}

    @property
    def model(self) -> str | None:
        """The version of the model that was published last."""
        model: str | None = self._fields["model"]
        return model

    def update(
        self,
        state: str,
        *,
        stale_symbols: Sequence[str],
        rest_only_symbols: Sequence[str],
        model: str | None,
        now_ms: int,
    ) -> bool:
        """Set the state; returns whether it differs from the one before.

        Args:
            state: such as ``online``.
            stale_symbols: symbols without forecasts.
            rest_only_symbols: symbols whose candles come by REST only.
            model: version of the served model; None before one serves.
            now_ms: Unix milliseconds, the beginning of a new state.
        """
        fields = {
            "state": state,
            "stale_symbols": list(stale_symbols),
            "rest_only_symbols": list(rest_only_symbols),
            "model": model,
        }
        if self._fields.items() >= fields.items():
            return False
        if self._fields.get("state") != state:
            self._fields["since_ms"] = now_ms
        self._fields |= {"schema": 1, "instance": self._instance, **fields}
        self.is_due = True
        return True

    def take_message(self) -> Outgoing:
        """Return the message to send and mark it as sent."""
        self.is_due = self.is_denied = False
        return self.message()

    def message(self) -> Outgoing:
        """Return the status as a retained message."""
        payload = orjson.dumps(self._fields)
        return Outgoing(self.topic, self.topic, payload, qos=1, retain=True)

    def will(self) -> bytes:
        """Return the payload that the broker publishes when the connection is lost."""
        return orjson.dumps(self._fields | {"state": "offline", **_NO_SYMBOLS})
