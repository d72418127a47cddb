"""Which symbols are forecast: they may change while the daemon runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from daemon.candles.window import Window
    from daemon.control.hot_swap import HotSwap
    from daemon.feed.backfill import Backfill
    from daemon.feed.feed import Feed
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.forecast.symbol_table import SymbolTable
    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock

log = logging.getLogger("candlecast.control")

_LOOK_S: Final = 0.2
_SETTLE_S: Final = 10.0
"""In some markets something closes all the time."""

_PATIENCE_S: Final = 60.0
"""Symbols whose history does not come in this time join without it, and are stale until it does."""


class SymbolChanger:
    """Adds and removes symbols under a running pipeline.

    Those that stay keep their windows, states and connections; where one of these has to be
    replaced, the old one goes when the new one has been heard of all its symbols.
    """

    def __init__(
        self,
        *,
        table: SymbolTable,
        scheduler: InferenceScheduler,
        feed: Feed,
        backfill: Backfill,
        swapper: HotSwap,
        resume: Callable[[Sequence[Window]], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Wire.

        Args:
            table: holds their windows.
            scheduler: tells when there is idle time.
            feed: subscribes to them.
            backfill: fetches their history.
            swapper: makes the model serve them.
            resume: primes windows from the history database.
            clock: the injected clock.
            metrics: forgets those that go.
        """
        self._table = table
        self._scheduler = scheduler
        self._feed = feed
        self._backfill = backfill
        self._swapper = swapper
        self._resume = resume
        self._clock = clock
        self._metrics = metrics

    async def change(self, symbols: Sequence[str]) -> None:
        """Forecast these symbols and no others from now on.

        Raises:
            CandlecastError: the model or the exchange cannot do it; nothing has changed.
        """
        async with self._swapper.turn:
            await self._change(symbols)

    async def _change(self, symbols: Sequence[str]) -> None:
        before = [window.symbol for window in self._table.windows]
        added = [symbol for symbol in symbols if symbol not in before]
        removed = set(before) - set(symbols)
        if not added and not removed:
            return
        await self._swapper.check(symbols)
        # A list of thousands of markets takes this thread some 0.3 s; begun right after a burst it
        # is over before the next one.
        await self._scheduler.wait_idle(_SETTLE_S)
        await self._feed.know(added)
        pending = self._table.add_pending(added)
        try:
            await self._fill(pending)
            staying = [w for w in self._table.windows if w.symbol not in removed]
            await self._swapper.seat(staying)
        finally:
            # If it came to nothing, this undoes it.
            self._table.discard_pending()
            self._follow()
        for symbol in removed:
            self._metrics.forget(symbol)
        log.info(
            "symbols added: %s; removed: %s",
            ", ".join(added) or "none",
            ", ".join(sorted(removed)) or "none",
        )

    async def _fill(self, pending: Sequence[Window]) -> None:
        """Wait until new windows are whole, but not for ever."""
        self._follow()
        await self._resume(pending)
        for window in pending:
            self._backfill.request(window.symbol)
        until_s = self._clock.monotonic() + _PATIENCE_S
        while self._clock.monotonic() < until_s and not all(window.whole for window in pending):
            await self._clock.sleep(_LOOK_S)

    def _follow(self) -> None:
        windows = self._table.windows
        self._backfill.follow(windows)
        self._feed.watch([window.symbol for window in windows])
