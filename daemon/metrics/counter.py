"""Count events for Prometheus without a lock.

Why not prometheus_client's counter: an increment takes 0.7 µs instead of 0.1. A candle makes an
increment on the receive path, which takes some 12 µs; what follows a forecast is counted for many
candles at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Count:
    """One series; only the event loop's thread uses it, so it needs no lock."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add ``amount``, which is not negative."""
        self.value += amount


class Counter(Count, Collector):
    """Counts of one name, one for each value of a label; or a single count without a label.

    >>> fruit = Counter("fruit", "Eaten", "kind")
    >>> fruit.labels("apple").inc()
    >>> [(s.name, s.labels, s.value) for family in fruit.collect() for s in family.samples]
    [('fruit_total', {'kind': 'apple'}, 1.0)]
    """

    __slots__ = ("_by_value", "_documentation", "_label", "_name")

    def __init__(self, name: str, documentation: str, label: str = "") -> None:
        """Start at zero.

        Args:
            name: of the series, without ``_total``.
            documentation: the help line.
            label: the label's name; empty for a single count.
        """
        super().__init__()
        self._name = name
        self._documentation = documentation
        self._label = label
        self._by_value: dict[str, Count] = {}

    def labels(self, value: str) -> Count:
        """Return the count of one value of the label; creates it if there is none."""
        if value not in self._by_value:
            self._by_value[value] = Count()
        return self._by_value[value]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the samples for prometheus_client."""
        if not self._label:
            yield CounterMetricFamily(self._name, self._documentation, self.value)
            return
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, count in self._by_value.items():
            family.add_metric([value], count.value)
        yield family
