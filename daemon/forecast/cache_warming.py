"""The path of a candle is walked for nothing just before candles close, so that it is warm.

Between two closes, everything else that runs on the machine passes through the processor's caches.
The first forecast afterwards takes twice as long as it does right after another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.forecast.batcher import Ready
from daemon.forecast.issuer import InferenceResult
from model.serving import REHEARSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.forecast.issuer import Issuer
    from daemon.forecast.pipeline import Pipeline
    from daemon.runtime.clock import Clock
    from model.core.candle import Timeframe

_LEAD_MS: Final = 15
"""Time for a first, cold rehearsal and a second one."""

_EVERY_S: Final = 0.01
"""A rehearsal takes some 0.4 ms, for which a candle that closes in just that moment waits."""

_PATIENCE_MS: Final = 2_000
"""Exchanges deliver the close up to two seconds after its boundary."""


def next_span_ms(now_ms: int, timeframe: Timeframe) -> tuple[int, int, int]:
    """When to rehearse for the next close after ``now_ms`` that there is time for.

    Returns:
        The first and the last moment, and the boundary, Unix milliseconds.
    """
    close_ms = timeframe.floor(now_ms + _LEAD_MS) + timeframe.ms
    return close_ms - _LEAD_MS, close_ms + min(_PATIENCE_MS, timeframe.ms // 4), close_ms


class CacheWarmer:
    """Rehearses again and again from shortly before each boundary until the first candle closes."""

    def __init__(
        self, pipeline: Pipeline, issuer: Issuer, clock: Clock, grid: Callable[[], Timeframe]
    ) -> None:
        """Wire; `run` rehearses.

        Args:
            pipeline: its windows and its model are used, and left as they are.
            issuer: writes what would be published.
            clock: the exchange's time.
            grid: tells on which grid the candles are, as far as it is known.
        """
        self._pipeline = pipeline
        self._issuer = issuer
        self._clock = clock
        self._grid = grid

    async def run(self) -> None:
        """Rehearse until cancelled."""
        pipeline, clock = self._pipeline, self._clock
        while True:
            now_ms = clock.wall_ms()
            begin_ms, end_ms, close_ms = next_span_ms(now_ms, self._grid())
            await clock.sleep((begin_ms - now_ms) / 1e3)
            while clock.wall_ms() < end_ms and pipeline.closed_ms < close_ms:
                if pipeline.is_idle:
                    self._forecast()
                await clock.sleep(_EVERY_S)

    def _forecast(self) -> None:
        """Forecast a few symbols from the candles that they have had."""
        served, windows = self._pipeline.served, self._pipeline.windows
        batch = [
            Ready(slot, window.newest)
            for slot, window in enumerate(windows[: min(REHEARSED, len(served.infos))])
            if window.newest is not None
        ]
        if not batch:
            return
        slots = np.array([ready.slot for ready in batch], dtype=np.intp)
        ohlcv = np.array([ready.candle.ohlcv for ready in batch], dtype=np.float64)
        opens = np.array([ready.candle.close_ms for ready in batch], dtype=np.int64)
        told = served.rehearse(slots, ohlcv, opens)
        times_s = self._clock.monotonic(), 0.0
        self._issuer.rehearse(batch, InferenceResult.of(batch, (served, windows), times_s, told))
