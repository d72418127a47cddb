"""Declare and update the metrics of the exchange's feed and of its clock."""

from __future__ import annotations

import logging
from math import nan
from typing import TYPE_CHECKING

from daemon.candles.window import CandleOutcome

if TYPE_CHECKING:
    from daemon.metrics.declarations import Declarations
    from model.core.candle import Candle

log = logging.getLogger("candlecast.metrics")


class FeedSeries:
    """Candles, connections and histories; each attribute's meaning is in its help line."""

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        self.messages = declare.counter("feed_messages", "Candle updates received")
        self._candles = declare.counter(
            "feed_candles", "Closed candles by their effect on the window", "verdict"
        )
        for verdict in CandleOutcome:
            self._candles.labels(verdict.value)
        self.refused = declare.counter("feed_refused", "Impossible candles refused")
        self.off_grid = declare.counter(
            "feed_off_grid",
            "Refused candles that do not open at the times of the exchange's other candles",
        )
        self._repaired = declare.counter(
            "feed_repaired",
            "Closed candles accepted with contradictory prices or without a volume",
        )
        self.reconnects = declare.counter(
            "feed_reconnects", "Connections that were lost and opened again"
        )
        self.backfills = declare.counter("feed_backfills", "Histories fetched to fill a gap")
        self.backfill_candles = declare.counter(
            "feed_backfill_candles", "Candles received with fetched histories"
        )
        self.silent = declare.counter(
            "feed_silent_streams",
            "Connections replaced because they sent nothing while the market traded",
        )
        self.renewals = declare.counter(
            "feed_renewals", "Connections replaced before the exchange closes them"
        )
        self.bans = declare.counter("feed_bans", "Responses by which the exchange banned requests")
        self.ban_end = declare.gauge(
            "feed_ban_end_timestamp_seconds", "Time at which the newest ban ends"
        )
        self.stale_symbols = declare.gauge(
            "feed_stale_symbols",
            "Symbols that get no forecast, or not one for each candle",
        )
        self._volumes = declare.gauge(
            "feed_volume_symbols",
            "Symbols by how their volumes by websocket compare with those by REST",
            "verdict",
        )

    def count_candles(self, verdict: str, candles: int = 1) -> None:
        """Count closed candles by their windows' verdict."""
        self._candles.labels(verdict).inc(candles)

    def set_volume_verdict(self, verdict: str, symbols: int) -> None:
        """Set how many symbols have this verdict on their volumes."""
        self._volumes.labels(verdict).set(symbols)

    def count_repaired(self, candle: Candle) -> None:
        """Count a candle whose values were corrected; log the first one."""
        if not self._repaired.value:
            log.warning(
                "%s: prices of the candle that opened at %d ms contradicted each other, or its "
                "volume was missing; it was corrected, further ones are only counted",
                candle.symbol,
                candle.open_ms,
            )
        self._repaired.inc()


class ClockSeries:
    """The exchange's clock.

    Attributes:
        offset: exchange's clock minus this machine's, seconds; NaN before it is measured.
        error: bound of the offset's error, seconds; NaN before it is measured.
        trusted: 1 while candles may be closed by the exchange's time.
    """

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        self.offset = declare.gauge(
            "exchange_clock_offset_seconds",
            "Exchange's clock minus this machine's wall clock; NaN until it was measured",
        )
        self.error = declare.gauge(
            "exchange_clock_error_seconds", "Uncertainty of the exchange's time"
        )
        self.trusted = declare.gauge(
            "exchange_clock_trusted", "1 while candles may be closed by the exchange's time"
        )
        self.offset.set(nan)
        self.error.set(nan)
