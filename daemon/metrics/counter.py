"""A Prometheus counter cheap enough for the hot path: 0.1 µs an increment instead of 1."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Count:
    """One series, counted and read by the event loop's thread alone, hence no lock."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add to it; a counter never goes down."""
        self.value += amount


class Counter(Count, Collector):
    """A family of counts that one label tells apart, or a single one without a label.

    >>> fruit = Counter("fruit", "Eaten", "kind")
    >>> fruit.labels("apple").inc()
    >>> [(s.name, s.labels, s.value) for family in fruit.collect() for s in family.samples]
    [('fruit_total', {'kind': 'apple'}, 1.0)]
    """

    __slots__ = ("_by_value", "_documentation", "_label", "_name")

    def __init__(self, name: str, documentation: str, label: str = "") -> None:
        """Declare it.

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
        """The series of one value of the label; it exists from then on."""
        if value not in self._by_value:
            self._by_value[value] = Count()
        return self._by_value[value]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What the exposition formats are made from."""
        if not self._label:
            yield CounterMetricFamily(self._name, self._documentation, self.value)
            return
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, count in self._by_value.items():
            family.add_metric([value], count.value)
        yield family
