"""Write candles, forecasts and scalers to the history on one thread, from a bounded queue.

Forecasting only appends to the queue, so it never waits for the disk. Forecasts that were published
together are one entry; they are converted to rows on the thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from daemon.runtime.backoff import Backoff
from daemon.runtime.outage import Outage
from model.core.errors import HistoryError
from model.history.rows import FittedScaler, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock
    from model.core.candle import Candle
    from model.core.market import MarketKey
    from model.forecasts.batch import ForecastBatch
    from model.history.store import History

log = logging.getLogger("candlecast.persistence")

T = TypeVar("T")

_BATCH_SIZE: Final = 4_000
"""Rows in one transaction at most."""

_BATCH_DELAY_S: Final = 0.1
"""Rows wait this long for others: the thread starts when a burst of candles is over."""

_RETRY_MIN_S: Final = 1.0
_RETRY_MAX_S: Final = 30.0
_PRUNE_INTERVAL_S: Final = 3_600.0
_PRUNE_PAUSE_S: Final = 0.05


class Recorder:
    """Writes queued rows; while the disk is full or broken, forecasting continues.

    The queue is bounded: beyond ``max_rows`` the oldest entries are dropped and their rows counted
    as lost, because a restart resumes from the newest. An entry is what one call records, at most
    the rows of a flush; nothing of it may be changed afterwards.

    Args:
        history: opened; while `run` runs, only this recorder's thread uses it.
        market: exchange and timeframe of all candles.
        keep_days: older rows are deleted once an hour, in small slices.
        clock: the injected clock.
        metrics: counts rows waiting and lost.
        max_rows: rows that may wait; 50,000 candles take some 20 MB.
    """

    def __init__(
        self,
        history: History,
        market: MarketKey,
        keep_days: float,
        clock: Clock,
        metrics: Metrics,
        *,
        max_rows: int = 50_000,
    ) -> None:
        self._history = history
        self._market = market
        self._keep_days = keep_days
        self._clock = clock
        self._metrics = metrics
        self._max_rows = max_rows
        # Not yet written, oldest first, and how many rows they have.
        self._queue: deque[Rows] = deque()
        self._waiting = 0
        # Set when there are rows to write.
        self._wake = asyncio.Event()
        # Held while a batch is written, by `run` or `flush`.
        self._write_lock = asyncio.Lock()
        self._outage = Outage(log)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")

    def record_candles(self, candles: Sequence[Candle]) -> None:
        """Queue closed candles, in the order in which they came; never waits."""
        self._enqueue(Rows(candles))

    def record_forecasts(self, forecasts: ForecastBatch) -> None:
        """Queue published forecasts; never waits."""
        self._enqueue(Rows(forecasts=(forecasts,)))

    def record_scalers(self, scalers: Sequence[FittedScaler]) -> None:
        """Queue scalers, before any forecast that was made with them; never waits."""
        self._enqueue(Rows(scalers=scalers))

    def _enqueue(self, rows: Rows) -> None:
        self._queue.append(rows)
        self._waiting += rows.total
        self._drop_oldest()
        self._wake.set()

    def _drop_oldest(self) -> None:
        """Drop and count the rows that the queue has no room for."""
        while self._waiting > self._max_rows:
            lost = self._queue.popleft().total
            self._waiting -= lost
            self._metrics.history.lost_rows.inc(lost)

    def _take(self) -> list[Rows]:
        """Take the oldest rows for one transaction out of the queue."""
        taken: list[Rows] = []
        total = 0
        while self._queue and (not taken or total + self._queue[0].total <= _BATCH_SIZE):
            taken.append(self._queue.popleft())
            total += taken[-1].total
        self._waiting -= total
        return taken

    def _put_back(self, taken: list[Rows]) -> None:
        """Return rows that could not be written to the head of the queue."""
        self._queue.extendleft(reversed(taken))
        self._waiting += sum(rows.total for rows in taken)
        self._drop_oldest()

    async def execute(self, work: Callable[[History], T]) -> T:
        """Call a function with the history on the recorder's thread, between two writes.

        Raises:
            HistoryError: the history cannot be read or written.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._history)

    async def run(self) -> None:
        """Write and prune until cancelled; then write what is left and end the thread."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_loop(), name="history-write")
                group.create_task(self._prune_loop(), name="history-prune")
        finally:
            await self.flush()
            await asyncio.to_thread(self._thread.shutdown)

    async def flush(self) -> None:
        """Write all queued rows; if that fails, log how many are lost."""
        try:
            while self._queue:
                await self._write_batch()
        except HistoryError as error:
            log.error("%d rows of history are lost: %s", self._waiting, error)  # noqa: TRY400 - the message suffices
            self._metrics.history.lost_rows.inc(self._waiting)
            self._queue.clear()
            self._waiting = 0

    async def _write_loop(self) -> None:
        backoff = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        while True:
            await self._wake.wait()
            await self._clock.sleep(_BATCH_DELAY_S)
            self._wake.clear()
            while self._queue:
                try:
                    await self._write_batch()
                except HistoryError as error:
                    self._note_failure(error)
                    await self._clock.sleep(backoff.next_delay_s())
                else:
                    self._note_success()
                    backoff.reset()

    async def _write_batch(self) -> None:
        """Write the oldest rows in one transaction; put them back if that fails."""
        async with self._write_lock:
            taken = self._take()
            try:
                # Repeatable, since the history ignores rows that it has.
                await self.execute(lambda history: history.add(self._market, Rows.joined(taken)))
            except BaseException:
                # Also when cancelled: they may have been written, but writing twice is harmless.
                self._put_back(taken)
                raise
            finally:
                self._metrics.history.waiting_rows.set(self._waiting)

    async def _prune_loop(self) -> None:
        while True:
            try:
                while await self.execute(lambda h: h.prune(self._keep_days, self._clock.wall_ms())):
                    await self._clock.sleep(_PRUNE_PAUSE_S)
            except HistoryError as error:
                self._note_failure(error)
            await self._clock.sleep(_PRUNE_INTERVAL_S)

    def _note_failure(self, error: HistoryError) -> None:
        self._metrics.history.failing.set(1)
        self._outage.begin(
            "%s; forecasts go on, the newest %d rows wait in memory", error, self._max_rows
        )

    def _note_success(self) -> None:
        self._metrics.history.failing.set(0)
        self._outage.end("history is written again; %d rows waiting", self._waiting)
