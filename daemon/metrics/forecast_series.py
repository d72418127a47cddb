"""Declare and update the metrics of a forecast's way from candle to broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.metrics.declarations import Declarations
    from model.core.candle import Candle
    from model.forecasts.batch import ForecastBatch
    from model.forecasts.forecast import Forecast

SECONDS: Final = (
    *(5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
"""Bounds of the latency histograms: 0.05 ms to 5 s."""

_SIZES: Final = tuple(2.0**power for power in range(12))
"""Bounds of the batch size histogram."""

STAGES: Final = (
    *("receive", "queue", "features", "inference", "encode", "publish"),
    *("ready", "total"),
)
OUTCOMES: Final = ("published", "late", "dropped", "skipped")
SKIP_REASONS: Final = (
    *("gap", "window", "untraded", "expired"),
    *("not_a_price", "not_an_interval", "repeated"),
)
"""Declared at the start: Prometheus sees the first increase only of series that exist before it."""


class ForecastSeries:
    """Latencies and outcomes of forecasts.

    Attributes:
        exchange_delay: from a candle's close to the arrival of its closing message, seconds.
        batch_size: symbols that the network ran together.
        latency_budget: limit of the ready latency, seconds.
        timeframe: length of the candles, seconds.
        outcomes: forecasts by what became of them.
        ready_latency: the histogram of stage ``ready``.
    """

    def __init__(self, declare: Declarations) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
        """
        self._stages = declare.histograms(
            "latency_seconds",
            "Time of each stage; ready: from the closing message to a message ready to send; "
            "total: to the broker's acknowledgement, or until sent with QoS 0",
            SECONDS,
            "stage",
            STAGES,
        )
        self.ready_latency = self._stages["ready"]
        self.exchange_delay = declare.histograms(
            "exchange_delay_seconds",
            "From a candle's closing boundary to the arrival of its closing message",
            SECONDS,
        )[""]
        self.batch_size = declare.histograms("batch_size", "Symbols forecast together", _SIZES)[""]
        self.latency_budget = declare.gauge("latency_budget_seconds", "Limit of the ready latency")
        self.timeframe = declare.gauge("timeframe_seconds", "Length of the candles")
        outcomes = declare.counter(
            "predictions", "Forecasts by outcome; late ones were published", "outcome"
        )
        self.outcomes = {outcome: outcomes.labels(outcome) for outcome in OUTCOMES}
        self._skipped = declare.counter(
            "predictions_skipped", "Forecasts that were not made, by reason", "reason"
        )
        for reason in SKIP_REASONS:
            self._skipped.labels(reason)
        self._unprepared = declare.counter(
            "unprepared", "Forecasts that ran their whole window because no state was prepared"
        )
        self._forming = declare.counter(
            "forming", "Updates of forming candles by the outcome of their forecast", "outcome"
        )
        self._last_prediction = declare.gauge(
            "last_prediction_timestamp_seconds",
            "Time at which the newest forecast was ready; before any, the time of the start",
        )

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Record how long one of `STAGES` took."""
        self._stages[stage].observe(seconds)

    def observe_delay(self, candle: Candle) -> None:
        """Record how long after its boundary a candle's closing message arrived."""
        self.exchange_delay.observe(max(0, candle.received_ms - candle.close_ms) / 1000)

    def on_received(self, candles: Sequence[Candle], receive_s: Sequence[float]) -> None:
        """Record when closing messages arrived.

        Args:
            candles: that closed.
            receive_s: from each one's arrival until its window took it.
        """
        delays_ms = [candle.received_ms - candle.close_ms for candle in candles]
        self.exchange_delay.observe_all(np.maximum(delays_ms, 0) / 1000)
        self._stages["receive"].observe_all(np.array(receive_s))

    def on_ready(self, forecasts: ForecastBatch) -> None:
        """Record the latencies of forecasts that are ready to send."""
        self.ready_latency.observe_all(forecasts.column("ready_ms") / 1e3)
        self._stages["queue"].observe_all(forecasts.column("queue_ms") / 1e3)

    def add_exemplar(self, forecast: Forecast) -> None:
        """Name a late forecast in the histogram that counts it, as its log line does."""
        labels = {"symbol": forecast.symbol, "seq": str(forecast.seq)}
        ready_s = forecast.latency.ready_ms / 1e3
        self.ready_latency.add_exemplar(ready_s, labels, forecast.published_ms / 1e3)

    def set_last_prediction(self, published_ms: int) -> None:
        """Record when the newest forecasts were ready, Unix milliseconds."""
        self._last_prediction.set(published_ms / 1e3)

    def on_published(self, publish_s: float, total_s: float, late: bool) -> None:  # noqa: FBT001 - a value
        """Record a forecast that the broker has: ``late`` if it was ready over the budget."""
        self._stages["publish"].observe(publish_s)
        self._stages["total"].observe(total_s)
        self.outcomes["late" if late else "published"].inc()

    def count_dropped(self, forecasts: int) -> None:
        """Count forecasts that were replaced by newer ones or expired before they were sent."""
        self.outcomes["dropped"].inc(forecasts)

    def count_skipped(self, reason: str, forecasts: int) -> None:
        """Count forecasts that were not made, by one of `SKIP_REASONS`."""
        if forecasts:
            self.outcomes["skipped"].inc(forecasts)
            self._skipped.labels(reason).inc(forecasts)

    def count_unprepared(self, forecasts: int) -> None:
        """Count forecasts that ran their whole window."""
        self._unprepared.inc(forecasts)

    def count_forming(self, outcome: str, updates: int = 1) -> None:
        """Count updates of forming candles: published, conflated with a newer one, or skipped."""
        self._forming.labels(outcome).inc(updates)
