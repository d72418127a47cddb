"""Every Prometheus series, declared in one place."""

from __future__ import annotations

import logging
from math import isfinite, nan
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.registry import Collector

from daemon.candles.window import Verdict
from daemon.metrics.accuracy_series import AccuracySeries
from daemon.metrics.counter import Count, Counter
from daemon.metrics.exposition import expose
from daemon.metrics.histogram import Histogram, Histograms
from daemon.metrics.model_series import ModelSeries, ShadowSeries
from daemon.metrics.retrain_series import RetrainSeries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.runtime.clock import Clock
    from daemon.scoring.accuracy import Accuracy
    from model.core.candle import Candle
    from model.forecasts.forecast import Forecast

log = logging.getLogger("candlecast.metrics")

SECONDS: Final = (
    *(5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
"""0.05 ms to 5 s."""

_SIZES: Final = tuple(2.0**power for power in range(12))
STAGES: Final = (
    *("receive", "queue", "features", "inference", "encode", "publish"),
    *("ready", "total"),
)
OUTCOMES: Final = ("published", "late", "dropped", "skipped")
SKIPPED: Final = (
    *("gap", "window", "untraded", "expired"),
    *("not_a_price", "not_an_interval", "repeated"),
)
"""Known from the start, so that their first increase can be seen."""

C = TypeVar("C", bound=Collector)


class Series(NamedTuple):
    """A series as it is declared.

    Attributes:
        name: as it is scraped, a histogram's without its suffixes.
        kind: counter, gauge or histogram.
        labels: the names of its labels.
        meaning: its help line.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Metrics:
    """All series of one daemon, in a registry of its own.

    Args:
        max_symbols: how many symbols, the first to have a forecast, get series of their own.

    Attributes:
        registry: the collectors.
        declared: every series, for the documentation.
    """

    def __init__(self, max_symbols: int = 100) -> None:
        self.registry = CollectorRegistry()
        self.declared: list[Series] = []
        self._max_symbols = max_symbols
        self._collectors: list[Collector] = []
        self._declare_path()
        self.accuracy = AccuracySeries(self._gauge, self._counter)
        self._declare_edges()
        self.model = ModelSeries(self._gauge, self._counter)
        self.shadow = ShadowSeries(self._gauge)
        self.retrain = RetrainSeries(self._gauge)
        self._declare_symbols()

    def _declare_path(self) -> None:
        self._stages = self._histograms(
            "latency_seconds",
            "Time of each stage; ready: from the closing message to a message ready to send; "
            "total: on to the broker's acknowledgement, or until sent with QoS 0",
            SECONDS,
            "stage",
            STAGES,
        )
        self.exchange_delay = self._histograms(
            "exchange_delay_seconds",
            "From a candle's closing boundary to the arrival of its closing message",
            SECONDS,
        )[""]
        self.batch_size = self._histograms("batch_size", "Symbols forecast together", _SIZES)[""]
        self.latency_budget = self._gauge("latency_budget_seconds", "Limit of the ready latency")
        self.timeframe = self._gauge("timeframe_seconds", "Length of the candles")
        outcomes = self._counter(
            "predictions", "Forecasts by what became of them; late ones were published", "outcome"
        )
        self._outcomes = {outcome: outcomes.labels(outcome) for outcome in OUTCOMES}
        self._skipped = self._counter(
            "predictions_skipped", "Forecasts that were not made, by reason", "reason"
        )
        for reason in SKIPPED:
            self._skipped.labels(reason)
        self._unprepared = self._counter(
            "unprepared", "Forecasts that had to run their whole window, states not being ready"
        )
        self._forming = self._counter(
            "forming", "Updates of forming candles by what became of their forecast", "outcome"
        )
        self._last_prediction = self._gauge(
            "last_prediction_timestamp_seconds",
            "When the newest forecast was made ready, at the first start when that was",
        )

    def _declare_edges(self) -> None:
        self.feed_messages = self._counter("feed_messages", "Candle updates received")
        self._feed_candles = self._counter(
            "feed_candles", "Closed candles by what the window made of them", "verdict"
        )
        for verdict in Verdict:
            self._feed_candles.labels(verdict.value)
        self.feed_refused = self._counter("feed_refused", "Impossible candles refused")
        self.feed_off_grid = self._counter(
            "feed_off_grid", "Refused candles that open at another time than the exchange's others"
        )
        self._feed_repaired = self._counter(
            "feed_repaired",
            "Closed candles taken although prices contradicted each other or the volume was "
            "missing",
        )
        self.feed_reconnects = self._counter("feed_reconnects", "Connections lost and renewed")
        self.feed_backfills = self._counter("feed_backfills", "Histories fetched to fill a gap")
        self.feed_backfill_candles = self._counter(
            "feed_backfill_candles", "Candles that those histories held"
        )
        self.feed_silent = self._counter(
            "feed_silent_streams", "Connections replaced because they kept trades to themselves"
        )
        self.feed_renewals = self._counter(
            "feed_renewals", "Connections replaced before the exchange closes them"
        )
        self.feed_bans = self._counter("feed_bans", "Answers by which the exchange banned us")
        self.feed_ban_end = self._gauge(
            "feed_ban_end_timestamp_seconds", "Until when the newest ban holds"
        )
        self.clock_offset = self._gauge(
            "exchange_clock_offset_seconds",
            "Exchange's clock minus this machine's wall clock; NaN while it was never measured",
        )
        self.clock_error = self._gauge(
            "exchange_clock_error_seconds", "By how much the exchange's time may be misjudged"
        )
        self.clock_trusted = self._gauge(
            "exchange_clock_trusted", "1 while candles may be closed by the exchange's time"
        )
        self.clock_offset.set(nan)
        self.clock_error.set(nan)
        self.feed_stale_symbols = self._gauge(
            "feed_stale_symbols",
            "Symbols that get no forecast, or not one for each candle",
        )
        self._volumes = self._gauge(
            "feed_volume_symbols",
            "Symbols by how their volumes by websocket compare with those by REST",
            "verdict",
        )
        self.mqtt_connected = self._gauge("mqtt_connected", "1 while there is a broker")
        self.mqtt_connections = self._counter("mqtt_connections", "Connections to the broker")
        self.mqtt_denied = self._counter("mqtt_denied", "Messages that the broker denied")
        self.history_rows = self._gauge("history_waiting_rows", "Rows that wait to be written")
        self.history_failing = self._gauge("history_failing", "1 while history cannot be written")
        self.history_lost = self._counter("history_lost_rows", "Rows that were never written")
        self.page_watchers = self._gauge("page_watchers", "Browsers that show the status page")
        self.page_skipped = self._counter(
            "page_skipped_updates", "Updates that a slow browser was spared: it got the newest"
        )

    def _declare_symbols(self) -> None:
        self._by_symbol: dict[str, _SymbolSeries] = {}
        self._symbol_families = (
            self._gauge("symbol_mae_ratio", "Model error ÷ last-value error, rolling", "symbol"),
            self._gauge("symbol_direction_accuracy", "Share of right directions", "symbol"),
            self._gauge(
                "symbol_last_prediction_timestamp_seconds",
                "When the symbol's newest forecast was made ready",
                "symbol",
            ),
        )

    def _counter(self, name: str, documentation: str, label: str = "") -> Counter:
        labels = (label,) if label else ()
        self.declared.append(Series(f"candlecast_{name}_total", "counter", labels, documentation))
        return self._add(Counter(f"candlecast_{name}", documentation, label))

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        self.declared.append(Series(f"candlecast_{name}", "gauge", labels, documentation))
        return self._add(Gauge(f"candlecast_{name}", documentation, labels, registry=None))

    def _histograms(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        label: str = "",
        values: Sequence[str] = ("",),
    ) -> Mapping[str, Histogram]:
        labels = (label,) if label else ()
        self.declared.append(Series(f"candlecast_{name}", "histogram", labels, documentation))
        family = Histograms(f"candlecast_{name}", documentation, bounds, label, values)
        return self._add(family).by_value

    def _add(self, collector: C) -> C:
        self.registry.register(collector)
        self._collectors.append(collector)
        return collector

    def stage(self, stage: str, seconds: float) -> None:
        """Record how long one of `STAGES` took."""
        self._stages[stage].observe(seconds)

    def ready(self, forecast: Forecast) -> None:
        """Record a forecast that is about to be sent."""
        ready_s = forecast.latency.ready_ms / 1e3
        self._stages["ready"].observe(ready_s)
        self._stages["queue"].observe(forecast.latency.queue_ms / 1e3)
        series = self._series_of(forecast.symbol)
        if series is not None:
            series.last_prediction.set(forecast.published_ms / 1e3)

    def add_exemplar(self, forecast: Forecast) -> None:
        """Name a late forecast in the histogram that counts it, as its log line does."""
        labels = {"symbol": forecast.symbol, "seq": str(forecast.seq)}
        ready_s = forecast.latency.ready_ms / 1e3
        self._stages["ready"].add_exemplar(ready_s, labels, forecast.published_ms / 1e3)

    def made_ready(self, published_ms: int) -> None:
        """Record when the newest forecasts were made ready."""
        self._last_prediction.set(published_ms / 1e3)

    def published(self, publish_s: float, total_s: float, late: bool) -> None:  # noqa: FBT001 - a value
        """Record a forecast that the broker has: ``late`` if it was ready over the budget."""
        self._stages["publish"].observe(publish_s)
        self._stages["total"].observe(total_s)
        self._outcomes["late" if late else "published"].inc()

    def count_dropped(self, forecasts: int) -> None:
        """Count forecasts that gave way to newer ones or expired before they could be sent."""
        self._outcomes["dropped"].inc(forecasts)

    def count_skipped(self, reason: str, forecasts: int) -> None:
        """Count forecasts that were not made."""
        if forecasts:
            self._outcomes["skipped"].inc(forecasts)
            self._skipped.labels(reason).inc(forecasts)

    def count_unprepared(self, forecasts: int) -> None:
        """Count forecasts that had to run their whole window."""
        self._unprepared.inc(forecasts)

    def count_forming(self, outcome: str, updates: int = 1) -> None:
        """Count updates of forming candles: published, conflated with a newer one, or skipped."""
        self._forming.labels(outcome).inc(updates)

    def count_candle(self, verdict: str) -> None:
        """Count a closed candle by what its window made of it."""
        self._feed_candles.labels(verdict).inc()

    def observe_delay(self, candle: Candle) -> None:
        """Record how long after its boundary a candle's closing message arrived."""
        self.exchange_delay.observe(max(0, candle.received_ms - candle.close_ms) / 1000)

    def show_volumes(self, verdict: str, symbols: int) -> None:
        """Show how many symbols have volumes of that verdict."""
        self._volumes.labels(verdict).set(symbols)

    def note_repaired(self, candle: Candle) -> None:
        """Count a candle whose values were put right; log the first one."""
        if not self._feed_repaired.value:
            log.warning(
                "%s: prices of the candle that opened at %d ms contradicted each other, or its "
                "volume was missing; it was put right and taken, further ones are only counted",
                candle.symbol,
                candle.open_ms,
            )
        self._feed_repaired.inc()

    def update_accuracy(self, accuracy: Accuracy) -> None:
        """Copy the rolling figures into the gauges; some 0.5 ms, so not per forecast."""
        self.accuracy.show(accuracy)
        for symbol, series in self._by_symbol.items():
            summary = accuracy.summary(symbol)
            ratio = nan if summary.skill is None else summary.skill.mae_ratio
            series.mae_ratio.set(ratio)
            hits = summary.direction_accuracy
            series.direction_accuracy.set(nan if hits is None else hits)

    def forget(self, symbol: str) -> None:
        """End the series of a symbol that is not forecast any more."""
        if self._by_symbol.pop(symbol, None) is not None:
            for family in self._symbol_families:
                family.remove(symbol)

    def summary(self) -> dict[str, float | None]:
        """What a person looks at first; None where there is no evidence."""
        ready = self._stages["ready"].cumulative()
        most = 0.99 * ready[-1][1]
        shown: dict[str, Count | Gauge] = {
            **self._outcomes,
            **self.accuracy.rolling,
            "budget_s": self.latency_budget,
            "messages": self.feed_messages,
            "reconnects": self.feed_reconnects,
            "refused": self.feed_refused,
            "clock_offset_s": self.clock_offset,
            "connections": self.mqtt_connections,
            "denied": self.mqtt_denied,
            "history_failing": self.history_failing,
        }
        figures = {name: _value(series) for name, series in shown.items()}
        bound = next(float(bucket[0]) for bucket in ready if bucket[1] >= most)
        return figures | {"p99_below_s": bound if most and isfinite(bound) else None}

    def _series_of(self, symbol: str) -> _SymbolSeries | None:
        series = self._by_symbol.get(symbol)
        if series is None and len(self._by_symbol) < self._max_symbols:
            series = _SymbolSeries(*(family.labels(symbol) for family in self._symbol_families))
            self._by_symbol[symbol] = series
        return series

    async def render(self, accept: str, clock: Clock) -> tuple[bytes, str]:
        """The text of all series and its content type, see `daemon.metrics.exposition.expose`."""
        return await expose(self._collectors, accept, clock)


def _value(series: Count | Gauge) -> float | None:
    """Its value; None for NaN."""
    if isinstance(series, Count):
        return series.value
    (metric,) = series.collect()
    value = metric.samples[0].value
    return value if isfinite(value) else None


class _SymbolSeries(NamedTuple):
    """The series of one symbol, at most three."""

    mae_ratio: Gauge
    direction_accuracy: Gauge
    last_prediction: Gauge
