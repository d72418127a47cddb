"""Do the accounting and prepare network states while no candle waits for its forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.forecast.accounting import DeferredAccounting
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.forecast.symbol_table import SymbolTable
    from daemon.runtime.clock import Clock

PREPARE_BATCH_SIZE: Final = 32
"""Some 2 ms of work: a closing candle never waits longer than 5 ms for the worker thread."""

_ACCOUNTING_BATCH_SIZE: Final = 64
"""Some 0.2 ms of work. The candles of a flush are scored together: 3 ms for 1,000 of them."""

_BURST_GAP_S: Final = 0.05
"""A burst is over after this time without a closing candle. Earlier, idle work would compete for
the cores with the exchange's messages and the broker's answers."""

_MAX_DELAY_S: Final = 0.5
"""Idle work waits no longer than this where candles close all the time."""


class IdleWork:
    """Enters what was deferred, then runs ahead of time what the next forecasts share."""

    def __init__(
        self,
        *,
        accounting: DeferredAccounting,
        scheduler: InferenceScheduler,
        table: SymbolTable,
        clock: Clock,
    ) -> None:
        """Start with nothing to do.

        Args:
            accounting: its entries are settled.
            scheduler: tells when there is idle time; its worker thread runs the network.
            table: has the served model.
            clock: the injected clock.
        """
        self._accounting = accounting
        self._scheduler = scheduler
        self._table = table
        self._clock = clock
        # Slots whose states are to be prepared, oldest first.
        self._unprepared: dict[int, None] = {}
        # When the first of them was added, monotonic seconds.
        self._deferred_s = 0.0

    def prepare_later(self, slots: Iterable[int]) -> None:
        """Note that the states of these symbols are to be prepared."""
        if not self._unprepared:
            self._deferred_s = self._clock.monotonic()
        self._unprepared |= dict.fromkeys(slots)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._scheduler.drained.wait()
            await self._do_next_slice()

    async def _do_next_slice(self) -> None:
        if not self._unprepared and not len(self._accounting):
            self._scheduler.on_idle_work_done()
            return
        begin_s = min(
            self._scheduler.last_arrival_s + _BURST_GAP_S, self._deferred_s + _MAX_DELAY_S
        )
        now_s = self._clock.monotonic()
        if now_s < begin_s:
            await self._clock.sleep(begin_s - now_s)
            return
        if len(self._accounting):
            self._accounting.settle(_ACCOUNTING_BATCH_SIZE)
            await self._clock.sleep(0)
        # Each closing candle adds entries, so preparing cannot always wait for the accounting.
        if not len(self._accounting) or now_s >= self._deferred_s + _MAX_DELAY_S:
            await self._prepare()

    async def _prepare(self) -> None:
        count = min(PREPARE_BATCH_SIZE, len(self._unprepared))
        # The newest first: where symbols close at different times they are the last to close again.
        slots = np.array([self._unprepared.popitem()[0] for _ in range(count)], dtype=np.intp)
        served = self._table.served
        rows, stamps = served.preparation(slots)
        await self._scheduler.run_in_worker(served.prepare, slots, rows, stamps)
