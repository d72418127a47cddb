"""Render metrics as Prometheus text in small slices, to keep the event loop responsive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from daemon.runtime.clock import Clock

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

_SLICE_SIZE: Final = 64
"""Samples rendered in one go, some 0.2 ms; then other tasks of the event loop run."""

_EOF: Final = b"# EOF\n"


class _Part(Collector):
    """A collector of one metric with some of its samples, as the encoders expect it."""

    def __init__(self, metric: Metric, samples: Sequence[Sample]) -> None:
        self._part = Metric(metric.name, metric.documentation, metric.type, metric.unit)
        self._part.samples = list(samples)

    def collect(self) -> Iterator[Metric]:
        yield self._part


async def expose(collectors: Iterable[Collector], accept: str, clock: Clock) -> tuple[bytes, str]:
    """Render metric by metric, slice by slice, yielding to the event loop after each slice.

    Args:
        collectors: in the order of the text.
        accept: the scraper's ``Accept`` header.
        clock: yields.

    Returns:
        The text and its content type: OpenMetrics if it is accepted, else the plain format.
    """
    encode, content_type = choose_encoder(accept)
    parts: list[bytes] = []
    for collector in collectors:
        for metric in collector.collect():
            parts += [part async for part in _slices(metric, encode, clock)]
    end = _EOF if content_type.startswith("application/openmetrics-text") else b""
    return b"".join(parts) + end, content_type


async def _slices(
    metric: Metric, encode: Callable[[Collector], bytes], clock: Clock
) -> AsyncIterator[bytes]:
    # The creation time of each counter would double the text, and Prometheus does not need it.
    samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    header = encode(_Part(metric, ())).removesuffix(_EOF)
    yield header
    for start in range(0, len(samples), _SLICE_SIZE):
        text = encode(_Part(metric, samples[start : start + _SLICE_SIZE]))
        yield text.removesuffix(_EOF).removeprefix(header)
        await clock.sleep(0)
