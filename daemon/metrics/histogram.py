"""Observe values in Prometheus histograms without a lock.

Why not prometheus_client's histogram: an observation takes 2 µs instead of 0.3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bucket = tuple[str, float] | tuple[str, float, Exemplar]


class Histogram:
    """One classic histogram; only the event loop's thread uses it, so it needs no lock.

    >>> histogram = Histogram((0.1, 1.0))
    >>> for seconds in (0.1, 0.5, 7.0):
    ...     histogram.observe(seconds)
    >>> histogram.cumulative(), histogram.sum
    ([('0.1', 1.0), ('1.0', 2.0), ('+Inf', 3.0)], 7.6)
    """

    __slots__ = ("_bounds", "_counts", "_exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(map(float, bounds))
        self._counts = [0] * (len(bounds) + 1)
        self._exemplars: dict[int, Exemplar] = {}
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add one value; a value equal to a bound belongs to that bound's bucket."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: NDArray[np.float64]) -> None:
        """Add many values, as `observe` adds one."""
        buckets = np.searchsorted(self._bounds, values)
        for bucket, count in enumerate(np.bincount(buckets, minlength=len(self._counts)).tolist()):
            self._counts[bucket] += count
        self.sum += float(values.sum())

    def add_exemplar(self, value: float, labels: Mapping[str, str], at_s: float) -> None:
        """Attach labels to an observed value, which lead to its log line.

        Args:
            value: as it was observed; each bucket keeps its newest exemplar.
            labels: at most 128 characters together (OpenMetrics).
            at_s: when it was observed, Unix time.
        """
        self._exemplars[bisect_left(self._bounds, value)] = Exemplar(dict(labels), value, at_s)

    def cumulative(self) -> list[Bucket]:
        """Return for each bucket its upper bound as text, the values up to it, and its exemplar."""
        names = [*map(str, self._bounds), "+Inf"]
        total = 0
        buckets: list[Bucket] = []
        for index, (name, count) in enumerate(zip(names, self._counts, strict=True)):
            total += count
            exemplar = self._exemplars.get(index)
            pair = name, float(total)
            buckets.append(pair if exemplar is None else (*pair, exemplar))
        return buckets


class Histograms(Collector):
    """Histograms of one name, one for each value of a label; or a single one without a label.

    Args:
        name: of the series, with its unit.
        documentation: the help line.
        bounds: ascending upper bounds.
        label: the label's name; empty for a single histogram.
        values: all values of the label.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        label: str = "",
        values: Sequence[str] = ("",),
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self.by_value = {value: Histogram(bounds) for value in values}

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the samples for prometheus_client."""
        labels = [self._label] if self._label else []
        family = HistogramMetricFamily(self._name, self._documentation, labels=labels)
        for value, histogram in self.by_value.items():
            family.add_metric([value] if self._label else [], histogram.cumulative(), histogram.sum)
        yield family
