"""Decide when inference and idle work run, and own the worker thread that runs networks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

from daemon.runtime.tasks import wait_first

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daemon.forecast.batcher import Batcher, Ready
    from daemon.runtime.clock import Clock
    from model.core.candle import Candle

MAX_IDLE_WAIT_S: Final = 10.0
"""For `wait_idle`, before work that should not run in a burst: in some markets a candle closes at
every moment, and the pipeline is never idle."""

T = TypeVar("T")
Args = TypeVarTuple("Args")


def _do_nothing() -> None:
    """What `ping` runs in the worker thread."""


class InferenceScheduler:
    """Hands out batches as soon as the last one is done, and tells when there is idle time.

    Attributes:
        last_close_ms: close of the candle that came last from the live stream, Unix milliseconds.
        last_arrival_s: when that candle came, monotonic seconds.
        drained: set while no candle waits for its forecast and idle work may be left.
    """

    def __init__(self, *, batcher: Batcher, clock: Clock) -> None:
        """Start the worker thread; `run` hands out batches.

        Args:
            batcher: holds the candles that wait.
            clock: the injected clock.
        """
        self._batcher = batcher
        self._clock = clock
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="engine")
        # Whether a batch is being forecast.
        self._busy = False
        # When a batch was finished, or a first candle began to wait, monotonic seconds.
        self._progress_s = 0.0
        # Set when a candle was enqueued.
        self._wake = asyncio.Event()
        # Set while neither forecasts nor idle work are left to do.
        self._idle = asyncio.Event()
        self.last_close_ms = 0
        self.last_arrival_s = 0.0
        self.drained = asyncio.Event()
        self.drained.set()

    @property
    def is_idle(self) -> bool:
        """Whether no candle waits for its forecast."""
        return not self._busy and not len(self._batcher)

    def on_candle_closed(self, close_ms: int, now_s: float) -> None:
        """Note that a candle came from the live stream.

        Args:
            close_ms: its close, Unix milliseconds.
            now_s: monotonic seconds.
        """
        self.last_close_ms = close_ms
        self.last_arrival_s = now_s

    def enqueue(self, slot: int, candle: Candle) -> Ready | None:
        """Have a closed candle forecast; returns the older one that it displaced, if any."""
        if not len(self._batcher):
            # `run` takes further candles without being woken again.
            self._progress_s = self._clock.monotonic()
            self.drained.clear()
            self._idle.clear()
            self._wake.set()
        return self._batcher.add(slot, candle)

    def discard(self, slot: int) -> Ready | None:
        """Remove a waiting candle, whose window is no longer whole."""
        return self._batcher.discard(slot)

    async def run(self, forecast: Callable[[list[Ready]], Awaitable[None]]) -> None:
        """Hand every batch to ``forecast``, one after the other, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._batcher.take_batch():
                self._busy = True
                await forecast(batch)
                self._busy = False
                self._progress_s = self._clock.monotonic()
                # Candles that arrived meanwhile enter the next batch.
                await self._clock.sleep(0)
            self.drained.set()

    def on_idle_work_done(self) -> None:
        """Note that no idle work is left."""
        self.drained.clear()
        # A candle may have closed since the last batch.
        if self.is_idle:
            self._idle.set()

    async def wait_idle(self, within_s: float = inf) -> None:
        """Wait until nothing waits to be forecast, accounted for or prepared.

        Args:
            within_s: give up after this time; in some markets candles close all the time.
        """
        # A candle may close between the end of a wait and what follows it.
        if within_s == inf:
            while not self._idle.is_set():
                await self._idle.wait()
            return
        until_s = self._clock.monotonic() + within_s
        while not self._idle.is_set() and (left_s := until_s - self._clock.monotonic()) > 0.0:
            await wait_first(self._clock, left_s, self._idle)

    async def run_in_worker(self, work: Callable[[*Args], T], *args: *Args) -> T:
        """Run ``work`` in the worker thread, after what it was given before."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *args)

    async def run_when_idle(self, work: Callable[[], T], within_s: float = inf) -> T:
        """Run a slice of other work in the worker thread, begun when nothing else is to do.

        Args:
            work: some 2 ms; a candle that closes meanwhile may have to wait for it.
            within_s: begin after this time in any case, seconds.
        """
        await self.wait_idle(within_s)
        return await self.run_in_worker(work)

    async def ping(self) -> None:
        """Wait for the worker thread to take a call; never returns while it is stuck."""
        await self.run_in_worker(_do_nothing)

    def stuck_s(self, now_s: float) -> float:
        """For how long a candle has been waiting without any progress, seconds."""
        return 0.0 if self.is_idle else now_s - self._progress_s

    def close(self) -> None:
        """End the worker thread after what it runs now."""
        self._worker.shutdown(wait=False, cancel_futures=True)
