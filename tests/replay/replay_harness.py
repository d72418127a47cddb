"""Run a feed under test and check that it leaves no task or connection behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from daemon.exchange.exchange_clock import ExchangeClock
from daemon.exchange.source import MarketSource
from daemon.feed.feed import Feed
from daemon.metrics.metrics import Metrics
from daemon.runtime.clock import Clock
from model.core.candle import Candle, Timeframe
from tests.support.servers import MAX_WAIT_S


@dataclass
class FeedHarness:
    """What a feed handed out, and its counters."""

    feed: Feed
    metrics: Metrics
    closed: list[Candle] = field(default_factory=list)
    resumed: list[tuple[str, int]] = field(default_factory=list)

    def count(self, name: str) -> float:
        """A counter's value, e.g. ``feed_refused``."""
        return self.metrics.registry.get_sample_value(f"candlecast_{name}_total") or 0.0

    def has_counted(self, name: str, value: float) -> bool:
        """Whether a counter has come to ``value``."""
        return self.count(name) >= value


def make_feed(
    urls: tuple[str | None, str | None],
    symbols: Iterable[str],
    clock: Clock,
    *,
    name: str = "binance",
    timeframe: str = "1m",
    on_closed: Callable[[Candle], None] | None = None,
) -> FeedHarness:
    """A feed that is not opened yet; ``urls`` are the REST and the websocket endpoint."""
    metrics = Metrics()
    closed: list[Candle] = []
    resumed: list[tuple[str, int]] = []
    source = MarketSource(name, *urls, tuple(symbols), Timeframe.parse(timeframe))
    feed = Feed(
        source,
        ExchangeClock(clock),
        metrics,
        on_closed or closed.append,
        lambda symbol, forming_ms: resumed.append((symbol, forming_ms)),
    )
    return FeedHarness(feed, metrics, closed, resumed)


@asynccontextmanager
async def running(harness: FeedHarness) -> AsyncIterator[FeedHarness]:
    """Open the feed and keep it running; nothing of it may be left afterwards."""
    async with nothing_left():
        try:
            await harness.feed.open()
            async with asyncio.TaskGroup() as group:
                task = group.create_task(harness.feed.run())
                yield harness
                task.cancel()
        finally:
            await harness.feed.close()


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail if a task outlives the body, or if an exception was never retrieved."""
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    dropped: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: dropped.append(context))
    yield
    async with asyncio.timeout(MAX_WAIT_S):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.002)
    # Unretrieved exceptions and unclosed connections are reported when collected.
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert not dropped
