"""Take closed candles into their windows and forecast from them.

Read it from `Pipeline.on_candle_closed` downwards.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from daemon.candles.window import CandleOutcome
from daemon.forecast.accounting import DeferredAccounting
from daemon.forecast.forecaster import Forecaster
from daemon.forecast.idle_work import IdleWork

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from daemon.candles.window import Window
    from daemon.forecast.accounting import Sinks
    from daemon.forecast.batcher import Ready
    from daemon.forecast.issuer import Issuer
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.forecast.symbol_table import SymbolTable
    from daemon.runtime.clock import Clock
    from model.core.candle import Candle
    from model.serving import ServedModel

_MAX_DELIVERY_MS: Final = 3_000
"""Exchanges deliver the close up to two seconds late; a symbol is stale a second after that."""


class Pipeline:
    """The path from a closed candle to its forecast.

    Attributes:
        accounting: where candles and forecasts are entered when there is time.
        unheard: returns the symbols that are traded and that the live stream does not mention.
    """

    def __init__(
        self,
        *,
        table: SymbolTable,
        scheduler: InferenceScheduler,
        issuer: Issuer,
        sinks: Sinks,
        clock: Clock,
        request_repair: Callable[[str], None],
    ) -> None:
        """Wire the path; `run` starts it.

        Args:
            table: windows and served model.
            scheduler: decides when to forecast.
            issuer: publishes the forecasts.
            sinks: accuracy, history and metrics.
            clock: the injected clock.
            request_repair: asks for the history of a symbol whose window has a gap.
        """
        self._table = table
        self._scheduler = scheduler
        self._issuer = issuer
        self._metrics = sinks.metrics
        self._clock = clock
        self._request_repair = request_repair
        self.unheard: Callable[[], Container[str]] = frozenset
        self.accounting: Final = DeferredAccounting(sinks, table.timeframe)
        self._idle_work = IdleWork(
            accounting=self.accounting, scheduler=scheduler, table=table, clock=clock
        )
        self._forecaster = Forecaster(
            table=table,
            scheduler=scheduler,
            issuer=issuer,
            accounting=self.accounting,
            recorder=sinks.recorder,
            clock=clock,
        )

    def on_candle_closed(self, candle: Candle) -> None:
        """Take in a final candle from the live stream."""
        slot = self._table.slots.get(candle.symbol)
        if slot is None:
            # The symbol was removed a moment ago.
            return
        window = self._table.windows[slot]
        verdict = window.add_closed(candle)
        is_queued = verdict is CandleOutcome.APPENDED and self._enqueue(slot)
        now_s = self._clock.monotonic()
        self._scheduler.on_candle_closed(candle.close_ms, now_s)
        receive_s = now_s - candle.received_s
        if is_queued:
            self.accounting.on_candle_queued(candle, receive_s)
        else:
            self.accounting.enter_candle(candle, receive_s, verdict=verdict)
        if verdict is CandleOutcome.APPENDED and window.newest is not candle:
            # It closed a gap. Of the candles that waited behind it the newest is forecast from.
            self.accounting.score(candle)
            self._count_overtaken(window, candle.close_ms)
        elif verdict is CandleOutcome.GAP:
            self._on_displaced(self._scheduler.discard(slot))
            self._request_repair(candle.symbol)
            self.accounting.score(candle)

    def on_resumed(self, symbol: str, forming_ms: int) -> None:
        """Note that the stream is back, with a candle that opened at ``forming_ms``."""
        slot = self._table.slots.get(symbol)
        if slot is None:
            return
        following_ms = self._table.windows[slot].next_open_ms
        if following_ms is None or forming_ms > following_ms:
            self._request_repair(symbol)

    def on_history(self, symbol: str, candles: Sequence[Candle]) -> None:
        """Take in closed candles from the exchange's history, ascending."""
        slot = self._table.slots.get(symbol)
        if slot is None:
            return
        window = self._table.windows[slot]
        following_ms = window.next_open_ms or 0
        for candle in candles:
            if candle.open_ms < following_ms and window.add_closed(candle) is CandleOutcome.REVISED:
                self.accounting.record((candle,))
                self._metrics.feed.count_candles(CandleOutcome.REVISED.value)
        new = [candle for candle in candles if candle.open_ms >= following_ms]
        if not window.merge_history(new):
            return
        self.accounting.record(new)
        for candle in new:
            self.accounting.score(candle)
        # Of what came together only the newest is forecast from, if nothing is missing before it.
        step_ms = self._table.timeframe.ms
        self._count_overtaken(window, following_ms + step_ms * window.is_complete)
        if window.is_complete:
            self._enqueue(slot)

    def _enqueue(self, slot: int) -> bool:
        """Have the newest candle forecast; returns False for a symbol that is pending."""
        if not self._table.is_forecast(slot):
            return False
        newest = self._table.windows[slot].newest
        assert newest is not None  # noqa: S101 - a candle was just appended
        self._on_displaced(self._scheduler.enqueue(slot, newest))
        return True

    def _on_displaced(self, ready: Ready | None) -> None:
        """Account for a candle that gets no forecast, since a newer one has closed."""
        if ready is not None:
            # The features never included it, so they are computed anew from the window.
            self._table.derived[ready.slot] = -1
            self.accounting.on_candle_dropped(ready.candle)

    def _count_overtaken(self, window: Window, since_ms: int) -> None:
        """Account for candles that had a successor before they could be forecast from."""
        # Before the first forecast of a symbol none is missed.
        if window.symbol in self.accounting.newest and window.next_open_ms is not None:
            overtaken = (window.next_open_ms - since_ms) // self._table.timeframe.ms
            self._metrics.forecasts.count_skipped("gap", overtaken)

    async def check_model(self) -> dict[int, str]:
        """Check the model on every whole window that it was not checked on.

        Returns:
            By slot what is wrong with its forecasts, as `model.serving_check.faults`.
        """
        await self._forecaster.check_model()
        return dict(self._table.faults)

    def withheld(self) -> dict[str, str]:
        """Symbols whose newest forecast was withheld: the end of a sentence about the forecast."""
        windows = self._table.windows
        faults = {windows[slot].symbol: why for slot, why in self._table.faults.items()}
        return self._issuer.unsound | faults

    def replace_model(
        self,
        served: ServedModel,
        windows: Sequence[Window],
        derived: list[int],
        tried: Iterable[int] = (),
    ) -> None:
        """Forecast by another model from the next batch on; call it while the path is idle.

        Args:
            served: its states prepared.
            windows: of its symbols, in its order, out of the table's; all others are removed.
            derived: the revision of each window that it has taken in; -1: not this one.
            tried: slots whose forecasts passed the check.
        """
        assert self._scheduler.is_idle  # noqa: S101 - a batch must be from one model
        self._table.replace_model(served, windows, derived, tried)
        self._forecaster.record_scalers()
        symbols = [window.symbol for window in windows]
        self.accounting.keep_only(symbols)
        self._issuer.set_symbols(symbols)

    def stale_symbols(self, now_ms: int) -> list[str]:
        """Symbols that are not forecast at ``now_ms``, or only from the exchange's history.

        Their window is not whole, their next candle is overdue, the live stream does not mention
        them, their forecasts are withheld or leave less often than their candles close, or there
        was no trade in all candles that they would be forecast from.
        """
        withheld, unheard = self.withheld(), self.unheard()
        return [
            window.symbol
            for window in self._table.windows
            if window.symbol in withheld
            or window.symbol in unheard
            or self._is_stale(window, now_ms)
        ]

    def _is_stale(self, window: Window, now_ms: int) -> bool:
        closed_ms = window.next_open_ms or 0
        due_ms = closed_ms + self._table.timeframe.ms + _MAX_DELIVERY_MS
        lookback = self._table.served.lookback
        return (
            not window.is_complete
            or now_ms > due_ms
            or window.count_untraded(lookback) == lookback
            or self.accounting.cadence.is_slow(window.symbol, closed_ms)
        )

    async def run(self) -> None:
        """Forecast whatever is ready, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._scheduler.run(self._forecast), name="forecast")
                group.create_task(self._idle_work.run(), name="idle-work")
        finally:
            self.accounting.settle()
            self._scheduler.close()

    async def _forecast(self, batch: Sequence[Ready]) -> None:
        slots = await self._forecaster.run(batch)
        self._idle_work.prepare_later(slots.tolist())
