"""Name the ways in which a connection to the MQTT broker ends.

ConnectionLostError          the connection is lost or was not made; try again
├── ClosedByBrokerError      the broker gave no reason
└── UnsupportedFeatureError  the connection used a feature that the broker lacks
LoginRefusedError            permanent; a `BrokerError`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.core.errors import BrokerError

if TYPE_CHECKING:
    from daemon.mqtt.limits import Limits


class ConnectionLostError(Exception):
    """The connection is lost; the message holds the reason."""


class ClosedByBrokerError(ConnectionLostError):
    """The broker closed the connection without a reason."""


class UnsupportedFeatureError(ConnectionLostError):
    """The broker does not support a feature that the connection uses.

    Attributes:
        supported: the features that it supports.
    """

    def __init__(self, reason: str, supported: Limits) -> None:
        """Keep both."""
        super().__init__(reason)
        self.supported = supported


class LoginRefusedError(BrokerError):
    """The broker refuses the login, and trying again cannot help.

    Attributes:
        advice: what to do.
    """

    def __init__(self, reason: str, advice: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.advice = advice
