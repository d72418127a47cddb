"""Declare Prometheus metrics and keep their collectors in the order of declaration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.registry import Collector

from daemon.metrics.counter import Counter
from daemon.metrics.histogram import Histograms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.metrics.histogram import Histogram

C = TypeVar("C", bound=Collector)


class Series(NamedTuple):
    """A metric as it is declared.

    Attributes:
        name: as it is scraped; of a histogram without its suffixes.
        kind: counter, gauge or histogram.
        labels: names of its labels.
        meaning: its help line.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Declarations:
    """Creates metrics whose names begin with ``candlecast_``.

    Attributes:
        registry: the collectors, for prometheus_client.
        collectors: the same, in the order of declaration.
        series: every metric, for the documentation.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.collectors: list[Collector] = []
        self.series: list[Series] = []

    def counter(self, name: str, documentation: str, label: str = "") -> Counter:
        """Declare a counter; its name is given without prefix and ``_total``."""
        labels = (label,) if label else ()
        self.series.append(Series(f"candlecast_{name}_total", "counter", labels, documentation))
        return self._register(Counter(f"candlecast_{name}", documentation, label))

    def gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        """Declare a gauge; its name is given without prefix."""
        self.series.append(Series(f"candlecast_{name}", "gauge", labels, documentation))
        return self._register(Gauge(f"candlecast_{name}", documentation, labels, registry=None))

    def histograms(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        label: str = "",
        values: Sequence[str] = ("",),
    ) -> Mapping[str, Histogram]:
        """Declare histograms of one name; returns them by the value of their label.

        Args:
            name: without prefix.
            documentation: the help line.
            bounds: ascending upper bounds of the buckets.
            label: name of the label; empty for a single histogram.
            values: all values of the label.
        """
        labels = (label,) if label else ()
        self.series.append(Series(f"candlecast_{name}", "histogram", labels, documentation))
        family = Histograms(f"candlecast_{name}", documentation, bounds, label, values)
        return self._register(family).by_value

    def _register(self, collector: C) -> C:
        self.registry.register(collector)
        self.collectors.append(collector)
        return collector
