"""The way into the history: a bounded queue and one thread, so that forecasting never waits."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from model.core.candle import Candle
from model.core.errors import HistoryError
from model.forecasts.forecast import Forecast
from model.history.store import FittedScaler

if TYPE_CHECKING:
    from daemon.metrics.metrics import Metrics
    from daemon.runtime.clock import Clock
    from model.core.market import MarketKey
    from model.history.store import History

log = logging.getLogger("candlecast.persistence")

T = TypeVar("T")
_Row = Candle | Forecast | FittedScaler

_TOGETHER: Final = 4_000
"""Rows in one transaction."""

_SETTLE_S: Final = 0.1
"""Rows wait this long for others, so that the thread starts when the burst is over."""

_BACKOFF_S: Final = (1.0, 30.0)
_PRUNE_EVERY_S: Final = 3_600.0
_PRUNE_PAUSE_S: Final = 0.05


class Recorder:
    """Writes what is offered; while the disk is full or broken, forecasting goes on.

    Bounded: beyond ``max_rows`` the oldest row gives way and is counted as lost, since a restart
    resumes from the newest.

    Args:
        history: opened; while `run` runs, only this recorder's thread uses it.
        market: exchange and timeframe of all candles.
        keep_days: what is older is deleted, once an hour in small slices.
        clock: the injected clock.
        metrics: rows waiting and lost.
        max_rows: that may wait; 50,000 take some 40 MB.
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
        self._rows: deque[_Row] = deque()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._failing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")

    def candle(self, candle: Candle) -> None:
        """Queue a closed candle; never waits."""
        self._offer(candle)

    def forecast(self, forecast: Forecast) -> None:
        """Queue a published forecast; never waits."""
        self._offer(forecast)

    def scaler(self, scaler: FittedScaler) -> None:
        """Queue a scaler, before any forecast that was made with it; never waits."""
        self._offer(scaler)

    def _offer(self, row: _Row) -> None:
        self._rows.append(row)
        self._trim()
        self._wake.set()

    def _trim(self) -> None:
        while len(self._rows) > self._max_rows:
            self._rows.popleft()
            self._metrics.history_lost.inc()

    async def read(self, question: Callable[[History], T]) -> T:
        """Ask the history on its own thread, between two writes.

        Raises:
            HistoryError: it cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, question, self._history
        )

    async def run(self) -> None:
        """Write and prune until cancelled; then write what is left and let the thread go."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_always(), name="history-write")
                group.create_task(self._prune_always(), name="history-prune")
        finally:
            await self.flush()
            await asyncio.to_thread(self._thread.shutdown)

    async def flush(self) -> None:
        """Write everything that waits, or log what is lost."""
        try:
            while self._rows:
                await self._write_some()
        except HistoryError as error:
            log.error("%d rows of history are lost: %s", len(self._rows), error)  # noqa: TRY400 - the line says it all
            self._metrics.history_lost.inc(len(self._rows))
            self._rows.clear()

    async def _write_always(self) -> None:
        shortest_s, longest_s = _BACKOFF_S
        delay_s = shortest_s
        while True:
            await self._wake.wait()
            await self._clock.sleep(_SETTLE_S)
            self._wake.clear()
            while self._rows:
                try:
                    await self._write_some()
                except HistoryError as error:
                    self._note_failure(error)
                    await self._clock.sleep(delay_s)
                    delay_s = min(2 * delay_s, longest_s)
                else:
                    self._note_success()
                    delay_s = shortest_s

    async def _write_some(self) -> None:
        """Write the oldest rows in one go; what fails goes back to its place."""
        async with self._turn:
            some = [self._rows.popleft() for _ in range(min(len(self._rows), _TOGETHER))]
            try:
                await self.read(lambda history: self._write(history, some))
            except BaseException:
                # Also when cancelled: whether it was written is unknown, and twice does no harm.
                self._rows.extendleft(reversed(some))
                self._trim()
                raise
            finally:
                self._metrics.history_rows.set(len(self._rows))

    def _write(self, history: History, rows: list[_Row]) -> None:
        # All may be repeated after a failure between them: history leaves out what it has.
        history.add_candles(self._market, [row for row in rows if isinstance(row, Candle)])
        if scalers := [row for row in rows if isinstance(row, FittedScaler)]:
            history.add_scalers(self._market, scalers)
        history.add_forecasts([row for row in rows if isinstance(row, Forecast)])

    async def _prune_always(self) -> None:
        while True:
            try:
                while await self.read(lambda h: h.prune(self._keep_days, self._clock.wall_ms())):
                    await self._clock.sleep(_PRUNE_PAUSE_S)
            except HistoryError as error:
                self._note_failure(error)
            await self._clock.sleep(_PRUNE_EVERY_S)

    def _note_failure(self, error: HistoryError) -> None:
        self._metrics.history_failing.set(1)
        if not self._failing:
            log.warning(
                "%s; forecasts go on, the newest %d rows wait in memory", error, self._max_rows
            )
        self._failing = True

    def _note_success(self) -> None:
        self._metrics.history_failing.set(0)
        if self._failing:
            log.info("history is written again; %d rows waiting", len(self._rows))
        self._failing = False
