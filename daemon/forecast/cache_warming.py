"""Run dummy forecasts around each candle boundary to keep the processor's caches warm.

Between two closes, other work evicts the path's code and data from the caches. The first forecast
afterwards would take twice as long as one right after another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.forecast.batcher import Ready
from daemon.forecast.results import InferenceResult
from model.serving import DRY_RUN_SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.forecast.issuer import Issuer
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.forecast.symbol_table import SymbolTable
    from daemon.runtime.clock import Clock
    from model.core.candle import Timeframe

_LEAD_MS: Final = 15
"""Time before the boundary for a first, cold dry run and a second one."""

_INTERVAL_S: Final = 0.01
"""A dry run takes some 0.4 ms; a candle that closes in that moment waits for it."""

_MAX_DELIVERY_MS: Final = 2_000
"""Exchanges deliver the close up to two seconds after its boundary."""


def next_span_ms(now_ms: int, timeframe: Timeframe) -> tuple[int, int, int]:
    """When to run for the next close after ``now_ms`` that there is time for.

    Returns:
        The first and the last moment, and the boundary, Unix milliseconds.
    """
    close_ms = timeframe.floor(now_ms + _LEAD_MS) + timeframe.ms
    return close_ms - _LEAD_MS, close_ms + min(_MAX_DELIVERY_MS, timeframe.ms // 4), close_ms


class CacheWarmer:
    """Repeats dry runs from shortly before each boundary until the first candle closes."""

    def __init__(
        self,
        *,
        table: SymbolTable,
        scheduler: InferenceScheduler,
        issuer: Issuer,
        clock: Clock,
        timeframe: Callable[[], Timeframe],
    ) -> None:
        """Wire; `run` starts it.

        Args:
            table: its windows and its model are read, never changed.
            scheduler: tells when no candle waits for its forecast.
            issuer: writes the messages.
            clock: the exchange's time.
            timeframe: returns the grid of the candles, as far as it is known.
        """
        self._table = table
        self._scheduler = scheduler
        self._issuer = issuer
        self._clock = clock
        self._timeframe = timeframe

    async def run(self) -> None:
        """Run until cancelled."""
        scheduler, clock = self._scheduler, self._clock
        while True:
            now_ms = clock.wall_ms()
            begin_ms, end_ms, close_ms = next_span_ms(now_ms, self._timeframe())
            await clock.sleep((begin_ms - now_ms) / 1e3)
            while clock.wall_ms() < end_ms and scheduler.last_close_ms < close_ms:
                if scheduler.is_idle:
                    self._dry_run()
                await clock.sleep(_INTERVAL_S)

    def _dry_run(self) -> None:
        """Forecast a few symbols from the candles that they have had."""
        served, windows = self._table.served, self._table.windows
        batch = [
            Ready(slot, window.newest)
            for slot, window in enumerate(windows[: min(DRY_RUN_SYMBOLS, len(served.infos))])
            if window.newest is not None
        ]
        if not batch:
            return
        slots = np.array([ready.slot for ready in batch], dtype=np.intp)
        ohlcv = np.array([ready.candle.ohlcv for ready in batch], dtype=np.float64)
        opens = np.array([ready.candle.close_ms for ready in batch], dtype=np.int64)
        output = served.dry_run(slots, ohlcv, opens)
        started_s = self._clock.monotonic()
        self._issuer.dry_run(
            InferenceResult.collect(
                batch, self._table, output, started_s=started_s, inference_s=0.0
            )
        )
