"""What can wait until a burst of closing candles is over."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.runtime.tasks import wait_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from daemon.forecast.accounting import DeferredAccounting
    from daemon.runtime.clock import Clock
    from model.serving import ServedModel

_PREPARED_TOGETHER: Final = 32
"""Some 2 ms of work: a closing candle never waits longer than 5 ms for the worker thread."""

_ENTERED_TOGETHER: Final = 64
"""Some 0.5 ms of work."""

_QUIET_S: Final = 0.05
"""A burst is over when so long nothing has closed; before that, this would take the cores from the
exchange's messages and the broker's answers."""

_PATIENCE_S: Final = 0.5
"""A market in which something closes all the time is never quiet: what can wait, waits so long."""


class IdleWork:
    """Keeps the books, then runs ahead of time what the next forecasts share."""

    def __init__(
        self,
        ledger: DeferredAccounting,
        worker: Executor,
        clock: Clock,
        served: Callable[[], ServedModel],
        is_idle: Callable[[], bool],
    ) -> None:
        """Begin with nothing to do.

        Args:
            ledger: what it owes to the books is entered.
            worker: the thread that runs the network.
            clock: the injected clock.
            served: the model at work.
            is_idle: whether no candle waits for its forecast.
        """
        self._ledger = ledger
        self._worker = worker
        self._clock = clock
        self._served = served
        self._is_idle = is_idle
        self._unprepared: dict[int, None] = {}
        self._arrived_s = 0.0
        self._put_off_s = 0.0
        self._free = asyncio.Event()
        self._free.set()
        self._settled = asyncio.Event()

    def stand_back(self) -> None:
        """Let a candle that waits for its forecast go first."""
        self._free.clear()
        self._settled.clear()

    def arrived(self, now_s: float) -> None:
        """Note that a candle has closed, monotonic seconds."""
        self._arrived_s = now_s

    def go_on(self) -> None:
        """Nothing waits for its forecast any more."""
        self._free.set()

    def put_off(self, slots: Iterable[int]) -> None:
        """Note that the states of these symbols are to be prepared."""
        if not self._unprepared:
            self._put_off_s = self._clock.monotonic()
        self._unprepared |= dict.fromkeys(slots)

    async def settled(self, within_s: float = inf) -> None:
        """Wait until nothing waits to be forecast, entered or prepared, so many seconds at most.

        Where something closes all the time that moment may never come.
        """
        # A candle may close between the end of a wait and what follows it.
        if within_s == inf:
            while not self._settled.is_set():
                await self._settled.wait()
            return
        until_s = self._clock.monotonic() + within_s
        while not self._settled.is_set() and (left_s := until_s - self._clock.monotonic()) > 0.0:
            await wait_first(self._clock, left_s, self._settled)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._free.wait()
            await self._work()

    async def _work(self) -> None:
        if not self._unprepared and not len(self._ledger):
            self._free.clear()
            # A candle may have closed between the end of a flush and here.
            if self._is_idle():
                self._settled.set()
            return
        begin_s = min(self._arrived_s + _QUIET_S, self._put_off_s + _PATIENCE_S)
        now_s = self._clock.monotonic()
        if now_s < begin_s:
            await self._clock.sleep(begin_s - now_s)
            return
        if len(self._ledger):
            self._ledger.settle(_ENTERED_TOGETHER)
            await self._clock.sleep(0)
        # Each closing candle enters something new, so preparing cannot always wait for the ledger.
        if not len(self._ledger) or now_s >= self._put_off_s + _PATIENCE_S:
            await self._prepare()

    async def _prepare(self) -> None:
        most = min(_PREPARED_TOGETHER, len(self._unprepared))
        # The newest first: on mixed timetables they are the last to close again.
        slots = np.array([self._unprepared.popitem()[0] for _ in range(most)], dtype=np.intp)
        served = self._served()
        rows, stamps = served.preparation(slots)
        await asyncio.get_running_loop().run_in_executor(
            self._worker, served.prepare, slots, rows, stamps
        )
