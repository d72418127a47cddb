"""Enter published forecasts and closed candles in accuracy, history and metrics, deferred."""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.candles.cadence import Cadence
from daemon.candles.window import CandleOutcome
from daemon.forecast.newest_forecasts import NewestForecasts
from model.forecasts.batch import ForecastBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.forecast.batcher import Ready
    from daemon.metrics.metrics import Metrics
    from daemon.persistence.recorder import Recorder
    from daemon.scoring.accuracy import Accuracy
    from model.core.candle import Candle, Timeframe
    from model.forecasts.forecast import Forecast


log = logging.getLogger("candlecast.forecast")


class Sinks(NamedTuple):
    """Where entries go."""

    accuracy: Accuracy
    recorder: Recorder
    metrics: Metrics


@dataclass(slots=True)
class FlushReport:
    """What is accounted for of one flush.

    Attributes:
        batch: the candles that it took, forecast or not.
        features_s: how long their features took.
        inference_s: how long each run of the network took.
        encode_s: how long the messages of each run took.
        unprepared: forecasts that ran their whole window.
        skipped: why candles were not forecast, a reason for each.
    """

    batch: Sequence[Ready]
    features_s: float = 0.0
    inference_s: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    unprepared: int = 0
    skipped: list[str] = field(default_factory=list)


def _identity(forecast: Forecast) -> dict[str, object]:
    """Fields that lead to a forecast's message, log line and metric."""
    return {
        "exchange": forecast.exchange,
        "symbol": forecast.symbol,
        "timeframe": forecast.timeframe,
        "seq": forecast.seq,
    }


class DeferredAccounting:
    """Queues what was published and what closed, and enters it when there is idle time.

    An entry costs about as much as a forecast; during a burst the next candles would wait for it.
    Bounded: a symbol's entries are settled before its next forecast (`is_pending`), so there is
    at most one forecast and one candle of each.

    Attributes:
        cadence: how often forecasts of each symbol leave.
        newest: the last forecast of each symbol that this process made.
    """

    def __init__(self, sinks: Sinks, timeframe: Timeframe) -> None:
        """Start without entries.

        Args:
            sinks: where entries go.
            timeframe: of the candles.
        """
        self._sinks = sinks
        self._step_ms = timeframe.ms
        self.cadence: Final = Cadence(timeframe.ms)
        # Candles from the live stream, with the seconds from their arrival until they were taken.
        self._arrivals: deque[tuple[Candle, float]] = deque()
        # Forecasts that were published together, and the flushes that they were made in.
        self._entries: deque[ForecastBatch | FlushReport] = deque()
        # The symbols in `_entries`.
        self._symbols: set[str] = set()
        # Since all was settled: how many forecasts there were, how many late, and the slowest.
        self._entered = 0
        self._late = 0
        self._slowest: Forecast | None = None
        self.newest: Final = NewestForecasts()

    def __len__(self) -> int:
        """Entries that wait; forecasts that were published together are one."""
        return len(self._entries) + len(self._arrivals)

    def on_candle_queued(self, candle: Candle, receive_s: float) -> None:
        """Queue a live candle that waits for its forecast.

        Args:
            candle: appended to its window.
            receive_s: from its arrival until then.
        """
        self._arrivals.append((candle, receive_s))

    def on_published(self, forecasts: ForecastBatch) -> None:
        """Queue forecasts that are on their way."""
        if not len(forecasts):
            return
        self._entries.append(forecasts)
        self._symbols.update(candle.symbol for candle in forecasts.candles)

    def on_flushed(self, flush: FlushReport) -> None:
        """Queue a flush: its candles answer the forecasts before."""
        self._entries.append(flush)
        self._symbols.update(ready.candle.symbol for ready in flush.batch)

    def is_pending(self, batch: Sequence[Ready]) -> bool:
        """Whether an entry of these symbols waits."""
        return any(ready.candle.symbol in self._symbols for ready in batch)

    def settle(self, max_count: int | None = None) -> None:
        """Enter what waits, oldest first, up to about so many forecasts and candles."""
        waiting = len(self._arrivals)
        done = waiting if max_count is None else min(waiting, max_count)
        if done:
            candles, receive_s = zip(*(self._arrivals.popleft() for _ in range(done)), strict=True)
            self._enter_candles(candles, receive_s, CandleOutcome.APPENDED)
        while self._entries and (max_count is None or done < max_count):
            entry = self._entries.popleft()
            if isinstance(entry, ForecastBatch):
                self._enter_forecasts(entry)
                done += len(entry)
            else:
                self._enter_flush(entry)
                done += len(entry.batch)
        if not self._entries:
            self._symbols.clear()
            self._report_late()

    def enter_candle(self, candle: Candle, receive_s: float, *, verdict: CandleOutcome) -> None:
        """Enter a live candle at once.

        Args:
            candle: from the live stream.
            receive_s: from its arrival until it was taken.
            verdict: what its window made of it.
        """
        self._enter_candles((candle,), (receive_s,), verdict)

    def _enter_candles(
        self, candles: Sequence[Candle], receive_s: Sequence[float], verdict: CandleOutcome
    ) -> None:
        metrics = self._sinks.metrics
        if verdict not in (CandleOutcome.DUPLICATE, CandleOutcome.STALE):
            self.record(candles)
        metrics.feed.count_candles(verdict.value, len(candles))
        metrics.forecasts.on_received(candles, receive_s)

    def record(self, candles: Sequence[Candle]) -> None:
        """Write down candles that their windows have taken."""
        self._sinks.recorder.record_candles(candles)
        for candle in candles:
            if candle.repaired:
                self._sinks.metrics.feed.count_repaired(candle)

    def on_candle_dropped(self, candle: Candle) -> None:
        """Account for a candle that gets no forecast, since a newer one has closed."""
        self._sinks.metrics.forecasts.count_dropped(1)
        self._expect(candle)
        self.score(candle)

    def score(self, candle: Candle) -> None:
        """Compare the forecast of this candle with it, at once."""
        self.settle()
        self._score((candle,))

    def keep_only(self, symbols: Sequence[str]) -> None:
        """Forget the newest forecasts of all other symbols."""
        self.settle()
        kept = set(symbols)
        self.newest.keep_only(kept)
        self.cadence.keep_only(kept)

    def _enter_forecasts(self, forecasts: ForecastBatch) -> None:
        accuracy, recorder, metrics = self._sinks
        recorder.record_forecasts(forecasts)
        metrics.on_forecasts_ready(forecasts)
        self.newest.add(forecasts)
        accuracy.on_published(forecasts)
        self._note_late(forecasts)
        if log.isEnabledFor(logging.DEBUG):
            for forecast in forecasts:
                log.debug("forecast", extra={"fields": _identity(forecast)})
        step_ms = self._step_ms
        self.cadence.on_published(
            (candle.symbol, candle.close_ms + step_ms) for candle in forecasts.candles
        )
        metrics.forecasts.set_last_prediction(forecasts.common.published_ms)

    def _enter_flush(self, flush: FlushReport) -> None:
        metrics = self._sinks.metrics
        metrics.forecasts.batch_size.observe(len(flush.batch))
        metrics.forecasts.observe_stage("features", flush.features_s)
        for seconds in flush.inference_s:
            metrics.forecasts.observe_stage("inference", seconds)
        for seconds in flush.encode_s:
            metrics.forecasts.observe_stage("encode", seconds)
        metrics.forecasts.count_unprepared(flush.unprepared)
        for reason, count in Counter(flush.skipped).items():
            metrics.forecasts.count_skipped(reason, count)
        candles = [ready.candle for ready in flush.batch]
        for candle in candles:
            self._expect(candle)
        self._score(candles)

    def _note_late(self, forecasts: ForecastBatch) -> None:
        self._entered += len(forecasts)
        late = np.flatnonzero(forecasts.late)
        if not len(late):
            return
        self._late += len(late)
        row = late[np.argmax(forecasts.column("ready_ms")[late])]
        slowest = forecasts.forecast(int(row))
        if self._slowest is None or slowest.latency.ready_ms > self._slowest.latency.ready_ms:
            self._slowest = slowest

    def _report_late(self) -> None:
        """Name the slowest forecast of a burst in the log, and as the exemplar of its metric."""
        slowest, late, entered = self._slowest, self._late, self._entered
        self._slowest, self._late, self._entered = None, 0, 0
        if slowest is None:
            return
        self._sinks.metrics.forecasts.add_exemplar(slowest)
        log.warning(
            "%d of %d forecasts were late, the slowest was ready after %.1f ms",
            late,
            entered,
            slowest.latency.ready_ms,
            extra={"fields": _identity(slowest)},
        )

    def _expect(self, candle: Candle) -> None:
        self.cadence.expect(candle.symbol, candle.close_ms + self._step_ms)

    def _score(self, candles: Sequence[Candle]) -> None:
        scores = self._sinks.accuracy.on_candles_closed(candles)
        if scores is not None:
            self._sinks.metrics.accuracy.on_scored(scores)
