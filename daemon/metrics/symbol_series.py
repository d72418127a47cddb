"""Declare and update the metrics of single symbols, for a bounded number of them."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import Gauge

    from daemon.metrics.declarations import Declarations
    from daemon.scoring.accuracy import Accuracy
    from model.forecasts.batch import ForecastBatch


class _Gauges(NamedTuple):
    """The series of one symbol."""

    mae_ratio: Gauge
    direction_accuracy: Gauge
    last_prediction: Gauge


class SymbolSeries:
    """Accuracy and newest forecast of each symbol."""

    def __init__(self, declare: Declarations, max_symbols: int) -> None:
        """Declare the metrics.

        Args:
            declare: creates them.
            max_symbols: symbols with series of their own, the first that have a forecast.
        """
        self._max_symbols = max_symbols
        self._by_symbol: dict[str, _Gauges] = {}
        self._families = (
            declare.gauge("symbol_mae_ratio", "Model error ÷ last-value error, rolling", "symbol"),
            declare.gauge("symbol_direction_accuracy", "Share of right directions", "symbol"),
            declare.gauge(
                "symbol_last_prediction_timestamp_seconds",
                "Time at which the symbol's newest forecast was ready",
                "symbol",
            ),
        )

    def on_ready(self, forecasts: ForecastBatch) -> None:
        """Record when the symbols' newest forecasts were ready to send."""
        published_s = forecasts.common.published_ms / 1e3
        for candle in forecasts.candles:
            gauges = self._by_symbol.get(candle.symbol)
            if gauges is None and len(self._by_symbol) < self._max_symbols:
                gauges = _Gauges(*(family.labels(candle.symbol) for family in self._families))
                self._by_symbol[candle.symbol] = gauges
            if gauges is not None:
                gauges.last_prediction.set(published_s)

    def update_accuracy(self, accuracy: Accuracy) -> None:
        """Copy the rolling figures of each symbol into its gauges."""
        for symbol, gauges in self._by_symbol.items():
            summary = accuracy.summary(symbol)
            gauges.mae_ratio.set(nan if summary.skill is None else summary.skill.mae_ratio)
            hits = summary.direction_accuracy
            gauges.direction_accuracy.set(nan if hits is None else hits)

    def remove(self, symbol: str) -> None:
        """Remove the series of a symbol that is no longer forecast."""
        if self._by_symbol.pop(symbol, None) is not None:
            for family in self._families:
                family.remove(symbol)
