"""The books behind the forecasts, kept when there is time for it."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from model.forecasts.batch import ForecastBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.forecast.batcher import Ready
    from daemon.metrics.metrics import Metrics
    from daemon.persistence.recorder import Recorder
    from daemon.scoring.accuracy import Accuracy
    from model.core.candle import Candle
    from model.forecasts.forecast import Forecast


log = logging.getLogger("candlecast.forecast")


class Sinks(NamedTuple):
    """Where the accounts are kept."""

    accuracy: Accuracy
    recorder: Recorder
    metrics: Metrics


def _identity(forecast: Forecast) -> dict[str, object]:
    """What finds a forecast's message, log and metric."""
    return {
        "exchange": forecast.exchange,
        "symbol": forecast.symbol,
        "timeframe": forecast.timeframe,
        "seq": forecast.seq,
    }


class DeferredAccounting:
    """Notes what was published and what closed; enters it in the books afterwards.

    An entry costs about as much as making the forecast, and in the middle of a burst the next
    candles would wait for it. Bounded: before a symbol is forecast again it must not be `owed`, so
    there is at most one forecast and one candle of each.

    Attributes:
        newest: the last forecast of each symbol that this process made.
    """

    def __init__(self, books: Sinks) -> None:
        """Begin with nothing owed."""
        self._books = books
        self._entries: deque[ForecastBatch | Candle] = deque()
        self._symbols: set[str] = set()
        self._late: list[Forecast] = []
        self._entered = 0
        self.newest: dict[str, Forecast] = {}

    def __len__(self) -> int:
        """Entries that are owed; forecasts that were published together are one."""
        return len(self._entries)

    def published(self, forecasts: ForecastBatch) -> None:
        """Note forecasts that are on their way."""
        if not len(forecasts):
            return
        self._entries.append(forecasts)
        self._symbols.update(candle.symbol for candle in forecasts.candles)

    def closed(self, batch: Sequence[Ready]) -> None:
        """Note candles that were forecast from: they answer the forecasts before."""
        self._entries.extend(ready.candle for ready in batch)
        self._symbols.update(ready.candle.symbol for ready in batch)

    def owes(self, batch: Sequence[Ready]) -> bool:
        """Whether something of these symbols is not yet entered."""
        return any(ready.candle.symbol in self._symbols for ready in batch)

    def settle(self, enough: int | None = None) -> None:
        """Enter what is owed, oldest first, until it was so many forecasts and candles."""
        done = 0
        while self._entries and (enough is None or done < enough):
            entry = self._entries.popleft()
            if isinstance(entry, ForecastBatch):
                self._enter(entry)
                done += len(entry)
            else:
                self._score(entry)
                done += 1
        if not self._entries:
            self._symbols.clear()
            self._tell_late()

    def score(self, candle: Candle) -> None:
        """Hold the forecast that was made of this candle against it, at once."""
        self.settle()
        self._score(candle)

    def forget_all_but(self, symbols: Sequence[str]) -> None:
        """Keep the newest forecasts of these symbols alone."""
        kept = set(symbols)
        self.newest = {s: f for s, f in self.newest.items() if s in kept}

    def _enter(self, forecasts: ForecastBatch) -> None:
        accuracy, recorder, metrics = self._books
        told = log.isEnabledFor(logging.DEBUG)
        for forecast in forecasts:
            accuracy.add(forecast)
            recorder.forecast(forecast)
            metrics.on_forecast_ready(forecast)
            self.newest[forecast.symbol] = forecast
            if forecast.late:
                self._late.append(forecast)
            if told:
                log.debug("forecast", extra={"fields": _identity(forecast)})
        self._entered += len(forecasts)
        metrics.forecasts.set_last_prediction(forecasts.common.published_ms)

    def _tell_late(self) -> None:
        """Name the slowest of a burst in log and metrics, so that one leads to the other."""
        late, self._late = self._late, []
        entered, self._entered = self._entered, 0
        if not late:
            return
        slowest = max(late, key=lambda forecast: forecast.latency.ready_ms)
        self._books.metrics.forecasts.add_exemplar(slowest)
        log.warning(
            "%d of %d forecasts were late, the slowest was ready after %.1f ms",
            len(late),
            entered,
            slowest.latency.ready_ms,
            extra={"fields": _identity(slowest)},
        )

    def _score(self, candle: Candle) -> None:
        realised = self._books.accuracy.on_candle(candle)
        if realised is not None:
            self._books.metrics.accuracy.on_realised(realised)
