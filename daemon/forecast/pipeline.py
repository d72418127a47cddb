"""The path of a candle, from its close to its forecast; read it from `on_closed` downwards."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from daemon.candles.window import Verdict, Window
from daemon.forecast.batcher import Batcher, Ready
from daemon.forecast.forecaster import Forecaster, SymbolTable
from daemon.forecast.idle_work import IdleWork

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from daemon.forecast.accounting import Sinks
    from daemon.forecast.issuer import Issuer
    from daemon.runtime.clock import Clock
    from model.core.candle import Candle
    from model.forecasts.forecast import Market
    from model.serving import ServedModel

T = TypeVar("T")

_DELIVERY_MS = 3_000
"""Exchanges deliver the close up to two seconds late; one more before that counts as silence."""


_TRIED_TOGETHER: Final = 256
"""Symbols that a model is tried on at once, some 0.1 s."""


def _nothing() -> None:
    """What a ping asks of the inference thread."""


class Pipeline:
    """Takes candles into their windows and has forecast from what is ready.

    Attributes:
        timeframe: of the candles.
        closed_ms: when the candle closed that came last from the live stream, Unix milliseconds.
        unheard: gives the symbols of which the live stream says nothing though they are traded.
    """

    def __init__(
        self,
        market: Market,
        served: ServedModel,
        batcher: Batcher,
        issuer: Issuer,
        books: Sinks,
        clock: Clock,
        request_repair: Callable[[str], None],
        capacity: int,
    ) -> None:
        """Wire the path; `run` starts it.

        Args:
            market: what is forecast.
            served: the model at work, for the same symbols in the same order.
            batcher: decides what is run together.
            issuer: publishes the forecasts.
            books: accuracy, history and metrics.
            clock: the injected clock.
            request_repair: asks for the history of a symbol whose window has a gap.
            capacity: candles a window holds: warm-up of the features + lookback.
        """
        self._batcher = batcher
        self._issuer = issuer
        self._ledger = issuer.ledger
        self._cadence = issuer.cadence
        self._books = books
        self._clock = clock
        self._request_repair = request_repair
        self.timeframe: Final = market.timeframe
        self._capacity = capacity
        self.closed_ms = 0
        self.unheard: Callable[[], Container[str]] = frozenset
        self._slots: dict[str, int] = {}
        self._seats = SymbolTable(served, [], [-1] * len(market.symbols))
        self.invite(market.symbols)
        self._busy = False
        self._progress_s = 0.0
        self._wake = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._catch_up = IdleWork(
            self._ledger, self._worker, clock, lambda: self.served, lambda: self.is_idle
        )
        self._flush = Forecaster(self._seats, market.timeframe, issuer, books, self._worker, clock)

    def on_closed(self, candle: Candle) -> None:
        """Take in a final candle from the live stream."""
        metrics = self._books.metrics
        slot = self._slots.get(candle.symbol)
        if slot is None:
            # Of a symbol that was removed a moment ago.
            return
        self.closed_ms = candle.close_ms
        window = self.windows[slot]
        verdict = window.add(candle)
        if verdict is Verdict.APPENDED:
            self._enqueue(slot)
            if window.newest is not candle:
                # It closed a gap: of those that had waited behind it the newest is forecast from.
                self._ledger.score(candle)
                self._count_overtaken(window, candle.close_ms)
        elif verdict is Verdict.GAP:
            self._drop(self._batcher.discard(slot))
            self._request_repair(candle.symbol)
            self._ledger.score(candle)
        if verdict not in (Verdict.DUPLICATE, Verdict.STALE):
            self._record(candle)
        metrics.feed.count_candle(verdict.value)
        now_s = self._clock.monotonic()
        self._catch_up.arrived(now_s)
        metrics.forecasts.observe_stage("receive", now_s - candle.received_s)

    def on_resumed(self, symbol: str, forming_ms: int) -> None:
        """Note that the stream is back, with a candle that opened at ``forming_ms``."""
        slot = self._slots.get(symbol)
        if slot is None:
            return
        following_ms = self.windows[slot].next_open_ms
        if following_ms is None or forming_ms > following_ms:
            self._request_repair(symbol)

    def on_history(self, symbol: str, candles: Sequence[Candle]) -> None:
        """Take in closed candles from the exchange's history, ascending."""
        slot = self._slots.get(symbol)
        if slot is None:
            return
        window = self.windows[slot]
        following_ms = window.next_open_ms or 0
        for candle in candles:
            if candle.open_ms < following_ms and window.add(candle) is Verdict.REVISED:
                self._record(candle)
                self._books.metrics.feed.count_candle(Verdict.REVISED.value)
        new = [candle for candle in candles if candle.open_ms >= following_ms]
        if not window.repair(new):
            return
        for candle in new:
            self._record(candle)
            self._ledger.score(candle)
        # Of what came together only the newest is forecast from, if nothing is missing before it.
        self._count_overtaken(window, following_ms + self.timeframe.ms * window.whole)
        if window.whole:
            self._enqueue(slot)

    def _record(self, candle: Candle) -> None:
        """Write down a candle that the window has taken."""
        self._books.recorder.candle(candle)
        if candle.repaired:
            self._books.metrics.feed.count_repaired(candle)

    def _count_overtaken(self, window: Window, since_ms: int) -> None:
        """Account for candles that had a successor before they could be forecast from."""
        # Before the first forecast of a symbol none is missed.
        if window.symbol in self._ledger.newest and window.next_open_ms is not None:
            overtaken = (window.next_open_ms - since_ms) // self.timeframe.ms
            self._books.metrics.forecasts.count_skipped("gap", overtaken)

    def invite(self, symbols: Sequence[str]) -> list[Window]:
        """Fill windows of further symbols; nothing is forecast from them until `take_over`."""
        first = len(self.windows)
        guests = [Window(s, self.timeframe, self._capacity) for s in symbols]
        self._seats.windows = [*self.windows, *guests]
        self._slots |= {symbol: slot for slot, symbol in enumerate(symbols, first)}
        return guests

    def dismiss(self) -> None:
        """Forget the invited windows that nothing is forecast from."""
        for window in self.windows[len(self._seats.derived) :]:
            del self._slots[window.symbol]
        self._seats.windows = self.windows[: len(self._seats.derived)]

    def _enqueue(self, slot: int) -> None:
        if slot >= len(self._seats.derived):
            return
        newest = self.windows[slot].newest
        assert newest is not None  # noqa: S101 - a candle was just appended
        if not len(self._batcher):
            self._progress_s = self._clock.monotonic()
        self._cadence.expect(newest.symbol, newest.close_ms + self.timeframe.ms)
        self._drop(self._batcher.add(slot, newest))
        self._catch_up.stand_back()
        self._wake.set()

    def _drop(self, ready: Ready | None) -> None:
        """Account for a candle that gets no forecast, since a newer one has closed."""
        if ready is not None:
            # The features never saw it, so they start over from the window.
            self._seats.derived[ready.slot] = -1
            self._books.metrics.forecasts.count_dropped(1)
            self._ledger.score(ready.candle)

    @property
    def served(self) -> ServedModel:
        """The model at work."""
        return self._seats.served

    @property
    def windows(self) -> Sequence[Window]:
        """Of every symbol, in the order of their slots; those of guests come last."""
        return self._seats.windows

    def awaits(self, candle: Candle) -> int | None:
        """The symbol's slot, if its features are ready for just this candle to come next."""
        slot = self._slots.get(candle.symbol)
        if slot is None or slot >= len(self._seats.derived):
            return None
        window = self.windows[slot]
        ready = window.whole and self._seats.is_level(slot)
        return slot if ready and window.next_open_ms == candle.open_ms else None

    async def ping(self) -> None:
        """Wait until the inference thread gets round to doing nothing; for ever if it is stuck."""
        await asyncio.get_running_loop().run_in_executor(self._worker, _nothing)

    async def settled(self, within_s: float = math.inf) -> None:
        """Wait until nothing waits to be forecast, entered in the books or prepared.

        Args:
            within_s: give up after so long: in some markets something closes all the time.
        """
        await self._catch_up.settled(within_s)

    async def aside(self, work: Callable[[], T], within_s: float = math.inf) -> T:
        """Do a slice of other work on the worker thread, begun when nothing else is to do.

        Args:
            work: some 2 ms, for a candle that closes meanwhile may have to wait for it.
            within_s: begin after so long in any case, seconds.
        """
        await self._catch_up.settled(within_s)
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def try_out(self) -> dict[int, str]:
        """Try the model on every whole window that it was not tried on.

        Returns:
            By slot what is wrong with its forecasts, as `model.tryout.faults` says it.
        """
        seats = self._seats
        fitted = seats.served.is_fitted(np.arange(len(seats.derived))).tolist()
        untried = [
            slot
            for slot, known in enumerate(fitted)
            if known and self.windows[slot].whole and slot not in seats.tried
        ]
        for start in range(0, len(untried), _TRIED_TOGETHER):
            await self._flush.try_out(untried[start : start + _TRIED_TOGETHER])
        return dict(seats.faults)

    def withheld(self) -> dict[str, str]:
        """Symbols whose newest forecast was withheld: the end of a sentence about the forecast."""
        reasons = {self.windows[slot].symbol: why for slot, why in self._seats.faults.items()}
        return self._issuer.unsound | reasons

    def take_over(
        self,
        served: ServedModel,
        windows: Sequence[Window],
        derived: list[int],
        tried: Iterable[int] = (),
    ) -> None:
        """Forecast by another model from the next batch on; call it when `settled` has returned.

        Args:
            served: its states prepared.
            windows: of its symbols, in its order, out of these here; all others are forgotten.
            derived: the revision of each window that it has taken in; -1: not this one.
            tried: slots whose forecasts were held against the last value.
        """
        assert self.is_idle  # noqa: S101 - a batch must be from one model
        self._seats.served, self._seats.windows = served, list(windows)
        self._seats.derived = derived
        self._seats.tried, self._seats.faults = set(tried), {}
        self._flush.note_scalers()
        symbols = [window.symbol for window in windows]
        self._slots = {symbol: slot for slot, symbol in enumerate(symbols)}
        self._issuer.address(symbols)

    def stuck_s(self, now_s: float) -> float:
        """For how long a candle has been waiting without any progress, seconds."""
        return now_s - self._progress_s if self._busy or len(self._batcher) else 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no candle waits for its forecast."""
        return not self._busy and not len(self._batcher)

    def stale_symbols(self, now_ms: int) -> list[str]:
        """Symbols that are not forecast at ``now_ms``, or only from the exchange's history.

        Their window is not whole, their next candle is overdue, the live stream says nothing of
        them, their forecasts are withheld or leave less often than their candles close, or there
        was no trade for so long that all of what they would be forecast from stands in for candles.
        """
        withheld, unheard = self.withheld(), self.unheard()
        return [
            window.symbol
            for window in self.windows
            if window.symbol in withheld
            or window.symbol in unheard
            or self._is_stale(window, now_ms)
        ]

    def _is_stale(self, window: Window, now_ms: int) -> bool:
        closed_ms = window.next_open_ms or 0
        due_ms = closed_ms + self.timeframe.ms + _DELIVERY_MS
        lookback = self.served.lookback
        return (
            not window.whole
            or now_ms > due_ms
            or window.filled(lookback) == lookback
            or self._cadence.is_slow(window.symbol, closed_ms)
        )

    async def run(self) -> None:
        """Forecast whatever is ready, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forecast(), name="forecast")
                group.create_task(self._catch_up.run(), name="catch-up")
        finally:
            self._ledger.settle()
            self._worker.shutdown(wait=False, cancel_futures=True)

    async def _forecast(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._batcher.take():
                self._busy = True
                self._catch_up.put_off((await self._flush.run(batch)).tolist())
                self._busy = False
                self._progress_s = self._clock.monotonic()
                # Lets what arrived meanwhile into the next batch.
                await self._clock.sleep(0)
            self._catch_up.go_on()
