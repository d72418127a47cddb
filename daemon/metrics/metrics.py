"""Hold all metrics of a daemon, grouped by subject, and render them."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from daemon.metrics.accuracy_series import AccuracySeries
from daemon.metrics.counter import Count
from daemon.metrics.declarations import Declarations
from daemon.metrics.exposition import expose
from daemon.metrics.feed_series import ClockSeries, FeedSeries
from daemon.metrics.forecast_series import ForecastSeries
from daemon.metrics.model_series import ModelSeries, ShadowSeries
from daemon.metrics.output_series import BrokerSeries, HistorySeries, PageSeries
from daemon.metrics.retrain_series import RetrainSeries
from daemon.metrics.symbol_series import SymbolSeries

if TYPE_CHECKING:
    from prometheus_client import Gauge

    from daemon.runtime.clock import Clock
    from daemon.scoring.accuracy import Accuracy
    from model.forecasts.batch import ForecastBatch


class Metrics:
    """All metrics of one daemon, in a registry of its own.

    Args:
        max_symbols: symbols with series of their own, the first that have a forecast.

    Attributes:
        registry: the collectors.
        declared: every metric, for the documentation.
    """

    def __init__(self, max_symbols: int = 100) -> None:
        declare = Declarations()
        self.registry = declare.registry
        self.declared = declare.series
        self._collectors = declare.collectors
        self.forecasts = ForecastSeries(declare)
        self.accuracy = AccuracySeries(declare)
        self.feed = FeedSeries(declare)
        self.clock = ClockSeries(declare)
        self.broker = BrokerSeries(declare)
        self.history = HistorySeries(declare)
        self.page = PageSeries(declare)
        self.model = ModelSeries(declare)
        self.shadow = ShadowSeries(declare)
        self.retrain = RetrainSeries(declare)
        self._symbols = SymbolSeries(declare, max_symbols)

    def on_forecasts_ready(self, forecasts: ForecastBatch) -> None:
        """Record forecasts that are ready to send."""
        self.forecasts.on_ready(forecasts)
        self._symbols.on_ready(forecasts)

    def update_accuracy(self, accuracy: Accuracy) -> None:
        """Copy the rolling figures into the gauges; some 0.5 ms, so not per forecast."""
        self.accuracy.update(accuracy)
        self._symbols.update_accuracy(accuracy)

    def remove_symbol(self, symbol: str) -> None:
        """Remove the series of a symbol that is no longer forecast."""
        self._symbols.remove(symbol)

    def summary(self) -> dict[str, float | None]:
        """Return the figures of the status page; None where there is no evidence."""
        buckets = self.forecasts.ready_latency.cumulative()
        needed = 0.99 * buckets[-1][1]
        shown: dict[str, Count | Gauge] = {
            **self.forecasts.outcomes,
            **self.accuracy.rolling,
            "budget_s": self.forecasts.latency_budget,
            "messages": self.feed.messages,
            "reconnects": self.feed.reconnects,
            "refused": self.feed.refused,
            "clock_offset_s": self.clock.offset,
            "connections": self.broker.connections,
            "denied": self.broker.denied,
            "history_failing": self.history.failing,
        }
        figures = {name: _value(series) for name, series in shown.items()}
        bound = next(float(bucket[0]) for bucket in buckets if bucket[1] >= needed)
        return figures | {"p99_below_s": bound if needed and isfinite(bound) else None}

    async def render(self, accept: str, clock: Clock) -> tuple[bytes, str]:
        """Return all metrics as text and its content type, see `exposition.expose`."""
        return await expose(self._collectors, accept, clock)


def _value(series: Count | Gauge) -> float | None:
    """Return the value of a series; None for NaN."""
    if isinstance(series, Count):
        return series.value
    (metric,) = series.collect()
    value = metric.samples[0].value
    return value if isfinite(value) else None
