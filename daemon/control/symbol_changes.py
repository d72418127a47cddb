"""Add and remove symbols while the daemon runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from daemon.forecast.scheduler import MAX_IDLE_WAIT_S

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

_POLL_INTERVAL_S: Final = 0.2

_MAX_HISTORY_WAIT_S: Final = 60.0
"""Symbols whose history takes longer join without it, and are stale until it arrives."""


class SymbolChanger:
    """Adds symbols to a running pipeline and removes them.

    Symbols that stay keep their windows, states and connections. If a connection must be replaced,
    the old one is closed after the new one has delivered an update of each of its symbols.
    """

    def __init__(
        self,
        *,
        table: SymbolTable,
        scheduler: InferenceScheduler,
        feed: Feed,
        backfill: Backfill,
        hot_swap: HotSwap,
        resume: Callable[[Sequence[Window]], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Wire.

        Args:
            table: holds the windows of the symbols.
            scheduler: tells when the pipeline is idle.
            feed: subscribes to the symbols.
            backfill: fetches their history.
            hot_swap: loads the model for them.
            resume: fills windows from the history database.
            clock: the injected clock.
            metrics: its series of removed symbols are removed.
        """
        self._table = table
        self._scheduler = scheduler
        self._feed = feed
        self._backfill = backfill
        self._hot_swap = hot_swap
        self._resume = resume
        self._clock = clock
        self._metrics = metrics

    async def change(self, symbols: Sequence[str]) -> None:
        """Forecast exactly these symbols from now on.

        Raises:
            CandlecastError: the model or the exchange does not support them; nothing has changed.
        """
        async with self._hot_swap.change_lock:
            await self._change(symbols)

    async def _change(self, symbols: Sequence[str]) -> None:
        before = [window.symbol for window in self._table.windows]
        added = [symbol for symbol in symbols if symbol not in before]
        removed = set(before) - set(symbols)
        if not added and not removed:
            return
        await self._hot_swap.require_servable(symbols)
        # A list of thousands of markets takes this thread some 0.3 s; begun right after a burst it
        # ends before the next one.
        await self._scheduler.wait_idle(MAX_IDLE_WAIT_S)
        await self._feed.check_symbols(added)
        pending = self._table.add_pending(added)
        try:
            await self._fill(pending)
            staying = [w for w in self._table.windows if w.symbol not in removed]
            await self._hot_swap.change_windows(staying)
        finally:
            # If anything failed, this removes the added windows again.
            self._table.discard_pending()
            self._update_subscriptions()
        for symbol in removed:
            self._metrics.remove_symbol(symbol)
        log.info(
            "symbols added: %s; removed: %s",
            ", ".join(added) or "none",
            ", ".join(sorted(removed)) or "none",
        )

    async def _fill(self, pending: Sequence[Window]) -> None:
        """Fill new windows from history and REST; wait up to `_MAX_HISTORY_WAIT_S` for them."""
        self._update_subscriptions()
        await self._resume(pending)
        for window in pending:
            self._backfill.request(window.symbol)
        deadline_s = self._clock.monotonic() + _MAX_HISTORY_WAIT_S
        while self._clock.monotonic() < deadline_s and not all(
            window.is_complete for window in pending
        ):
            await self._clock.sleep(_POLL_INTERVAL_S)

    def _update_subscriptions(self) -> None:
        """Subscribe and backfill the symbols of the pipeline's windows."""
        windows = self._table.windows
        self._backfill.set_windows(windows)
        self._feed.watch_symbols([window.symbol for window in windows])
