"""Declare the metrics of the broker, the history and the status page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.metrics.declarations import Declarations


class BrokerSeries:
    """The connection to the MQTT broker; each attribute's meaning is in its help line."""

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        self.connected = declare.gauge("mqtt_connected", "1 while connected to the broker")
        self.connections = declare.counter("mqtt_connections", "Connections to the broker")
        self.denied = declare.counter("mqtt_denied", "Messages denied by the broker")


class HistorySeries:
    """Writes to the history; each attribute's meaning is in its help line."""

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        self.waiting_rows = declare.gauge("history_waiting_rows", "Rows that wait to be written")
        self.failing = declare.gauge("history_failing", "1 while history cannot be written")
        self.lost_rows = declare.counter(
            "history_lost_rows", "Rows that were dropped without being written"
        )


class PageSeries:
    """Browsers on the status page; each attribute's meaning is in its help line."""

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        self.watchers = declare.gauge("page_watchers", "Browsers that show the status page")
        self.skipped_updates = declare.counter(
            "page_skipped_updates",
            "Updates skipped for slow browsers, which receive the newest one",
        )
