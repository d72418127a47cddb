"""From candles that closed together to their forecasts; read it from `run` downwards."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.forecast.issuer import InferenceResult, Issuer
from model.core.candle import Ohlcv
from model.history.store import FittedScaler
from model.serving_check import faults, summary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    import numpy.typing as npt

    from daemon.candles.window import Window
    from daemon.forecast.accounting import Sinks
    from daemon.forecast.batcher import Ready
    from daemon.runtime.clock import Clock
    from model.core.candle import Timeframe
    from model.serving import ServedModel

    Slots = npt.NDArray[np.intp]

log = logging.getLogger("candlecast.forecast")

_SENT_TOGETHER: Final = 64


@dataclass
class SymbolTable:
    """Who is forecast, and by which model; places are slots.

    Attributes:
        served: the model at work.
        windows: of its symbols, in its order; then those that nothing is forecast from yet.
        derived: the revision of each of its windows that it has taken in; -1: not this one.
        tried: slots whose forecasts by this model were held against the last value.
        faults: what is wrong with those of the slots that failed, as `model.tryout.faults` says it.
    """

    served: ServedModel
    windows: Sequence[Window]
    derived: list[int]
    tried: set[int] = field(default_factory=set)
    faults: dict[int, str] = field(default_factory=dict)

    def is_level(self, slot: int) -> bool:
        """Whether the model has taken in all that the window holds."""
        return self.derived[slot] == self.windows[slot].revision


def _rows(batch: Sequence[Ready]) -> npt.NDArray[np.float64]:
    """The candles as rows ``[k, 5]``; numpy looks at named tuples one by one, at a double cost."""
    values = chain.from_iterable([ready.candle.ohlcv for ready in batch])
    return np.fromiter(values, np.float64, 5 * len(batch)).reshape(-1, 5)


class Forecaster:
    """Derives, infers and issues what is flushed together."""

    def __init__(
        self,
        seats: SymbolTable,
        timeframe: Timeframe,
        issuer: Issuer,
        books: Sinks,
        worker: Executor,
        clock: Clock,
    ) -> None:
        """Wire.

        Args:
            seats: who is forecast; they may change between two flushes.
            timeframe: of the candles.
            issuer: publishes the forecasts.
            books: accuracy, history and metrics.
            worker: the thread that runs whole windows.
            clock: the injected clock.
        """
        self._seats = seats
        self._timeframe = timeframe
        self._issuer = issuer
        self._ledger = issuer.ledger
        self._books = books
        self._worker = worker
        self._clock = clock

    async def run(self, batch: Sequence[Ready]) -> Slots:
        """Everything between candles that closed together and their forecasts.

        Returns:
            The slots whose features have moved on, shape ``(k,)``.
        """
        if self._ledger.owes(batch):
            self._ledger.settle()
        started_s = self._clock.monotonic()
        metrics = self._books.metrics
        metrics.forecasts.batch_size.observe(len(batch))
        whole = [self._as_known(ready) for ready in batch if self._seats.windows[ready.slot].whole]
        metrics.forecasts.count_skipped("window", len(batch) - len(whole))
        slots = await self._derive(whole)
        metrics.forecasts.observe_stage("features", self._clock.monotonic() - started_s)
        prepared = self._seats.served.prepared(slots).tolist()
        messages: list[bytes] = []
        # Prepared symbols first: they need a single step, the others their whole window.
        for quick in (True, False):
            part = [r for r, is_quick in zip(whole, prepared, strict=True) if is_quick == quick]
            if part:
                messages += await self._infer(part, started_s, quick=quick)
        newest_ms = max((ready.candle.close_ms for ready in whole), default=0)
        self._issuer.issue_batch(messages, newest_ms + self._timeframe.ms)
        metrics.forecasts.count_unprepared(len(whole) - sum(prepared))
        self._ledger.closed(batch)
        return slots

    def _as_known(self, ready: Ready) -> Ready:
        """The candle with the values that its window holds: it may have been revised since."""
        if self._seats.is_level(ready.slot):
            return ready
        known = Ohlcv(*self._seats.windows[ready.slot].ohlcv()[-1].tolist())
        return ready._replace(candle=ready.candle._replace(ohlcv=known))

    async def _derive(self, batch: Sequence[Ready]) -> Slots:
        """Bring the scaled rows up to date; returns the batch's slots, shape ``(k,)``."""
        seats = self._seats
        moved = [ready.slot for ready in batch if not seats.is_level(ready.slot)]
        appended = [ready for ready in batch if seats.is_level(ready.slot)]
        if appended:
            slots = np.array([ready.slot for ready in appended], dtype=np.intp)
            seats.served.advance(slots, _rows(appended))
        if moved:
            # Copied here, since the windows go on changing while the worker thread computes.
            ohlcv = np.stack([seats.windows[slot].ohlcv() for slot in moved])
            for slot in moved:
                seats.derived[slot] = seats.windows[slot].revision
            await asyncio.get_running_loop().run_in_executor(
                self._worker, seats.served.rebuild, np.array(moved, dtype=np.intp), ohlcv
            )
            self.note_scalers()
        return np.array([r.slot for r in batch], dtype=np.intp)

    async def try_out(self, slots: Sequence[int]) -> None:
        """Hold the model's forecasts from whole windows against the last value."""
        seats = self._seats
        ohlcv = np.stack([seats.windows[slot].ohlcv() for slot in slots])
        found = await asyncio.get_running_loop().run_in_executor(
            self._worker, faults, seats.served, np.array(slots, dtype=np.intp), ohlcv
        )
        good = [slot for slot in slots if slot not in found]
        seats.tried.update(good)
        for slot in good:
            seats.faults.pop(slot, None)
        seats.faults |= found

    async def _withhold(self, batch: Sequence[Ready], price: npt.NDArray[np.float64]) -> None:
        """Take away the prices of symbols that the model has failed; a failed one is tried anew."""
        seats = self._seats
        slots = [ready.slot for ready in batch]
        untried = [slot for slot in slots if slot not in seats.tried]
        if not untried:
            return
        before = set(seats.faults)
        await self.try_out(untried)
        price[[slot in seats.faults for slot in slots]] = np.nan
        if new := {slot: why for slot, why in seats.faults.items() if slot not in before}:
            served = seats.served
            why = summary(served.symbols, new, len(untried))
            log.error("model %s: %s; roll back: candlecast models rollback", served.version, why)

    def note_scalers(self) -> None:
        """Have scalers that were fitted just now written down, before what is forecast by them."""
        served, now_ms = self._seats.served, self._clock.wall_ms()
        for symbol, state in served.take_fitted().items():
            model = served.version, served.sha256
            self._books.recorder.scaler(FittedScaler(model, symbol, now_ms, state))

    async def _infer(self, batch: Sequence[Ready], started_s: float, *, quick: bool) -> list[bytes]:
        """Run one part of a flush and hand out its forecasts."""
        served, metrics, clock = self._seats.served, self._books.metrics, self._clock
        slots = np.array([ready.slot for ready in batch], dtype=np.intp)
        inferring_s = clock.monotonic()
        if quick:
            raw = served.step(slots)
        else:
            raw = await asyncio.get_running_loop().run_in_executor(
                self._worker, served.full, served.windows(slots)
            )
        inferred_s = clock.monotonic()
        last = np.array([ready.candle.ohlcv.close for ready in batch], dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            prices = served.price(slots, raw, last)
        await self._withhold(batch, prices)
        opens = np.array([ready.candle.close_ms for ready in batch], dtype=np.int64)
        outlook = served.calibration.outlook(slots, prices, last, opens)
        told = raw, prices, last, outlook, served.out_of_range(slots)
        source, times_s = (served, self._seats.windows), (started_s, inferred_s - inferring_s)
        run = InferenceResult.of(batch, source, times_s, told)
        messages: list[bytes] = []
        encode_s = clock.monotonic() - inferred_s
        for start in range(0, len(batch), _SENT_TOGETHER):
            encoding_s = clock.monotonic()
            part = slice(start, start + _SENT_TOGETHER)
            messages += self._issuer.issue(batch[part], run.part(part))
            encode_s += clock.monotonic() - encoding_s
            # The publisher sends these while the next are made.
            await clock.sleep(0)
        if withheld := self._issuer.withheld:
            # Learnt is from what was published alone: history tells how an interval came about.
            served.calibration.forget(np.array(withheld, dtype=np.intp))
            withheld.clear()
        metrics.forecasts.observe_stage("inference", run.inference_s)
        metrics.forecasts.observe_stage("encode", encode_s)
        return messages
