"""Compute and publish the forecasts of candles that are flushed together.

Read it from `Forecaster.run` downwards.
"""

from __future__ import annotations

import logging
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.forecast.accounting import FlushReport
from daemon.forecast.results import InferenceResult
from model.core.candle import Ohlcv
from model.history.rows import FittedScaler
from model.serving import ModelOutput
from model.serving_check import faults, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from daemon.forecast.accounting import DeferredAccounting
    from daemon.forecast.batcher import Ready
    from daemon.forecast.issuer import Issuer
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.forecast.symbol_table import SymbolTable
    from daemon.persistence.recorder import Recorder
    from daemon.runtime.clock import Clock

    Slots = npt.NDArray[np.intp]

log = logging.getLogger("candlecast.forecast")

_ISSUE_BATCH_SIZE: Final = 64
"""Messages are made in parts of this size; the publisher sends one while the next is made."""

_CHECK_BATCH_SIZE: Final = 256
"""Symbols whose forecasts are checked in one call, some 0.1 s."""


class Forecaster:
    """Computes features, runs the network and publishes what it gives."""

    def __init__(
        self,
        *,
        table: SymbolTable,
        scheduler: InferenceScheduler,
        issuer: Issuer,
        accounting: DeferredAccounting,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        """Wire.

        Args:
            table: windows and model; they may change between two flushes.
            scheduler: its worker thread runs whole windows.
            issuer: publishes the forecasts.
            accounting: what was published is queued there.
            recorder: writes down scalers that were fitted.
            clock: the injected clock.
        """
        self._table = table
        self._scheduler = scheduler
        self._issuer = issuer
        self._accounting = accounting
        self._recorder = recorder
        self._clock = clock

    async def run(self, batch: Sequence[Ready]) -> Slots:
        """Forecast from candles that closed together.

        Returns:
            The slots whose features have changed, shape ``(k,)``.
        """
        if self._accounting.is_pending(batch):
            self._accounting.settle()
        table, started_s = self._table, self._clock.monotonic()
        report = FlushReport(batch)
        whole = [
            self._as_in_window(ready) for ready in batch if table.windows[ready.slot].is_complete
        ]
        report.skipped += ["window"] * (len(batch) - len(whole))
        slots = await self._update_features(whole)
        report.features_s = self._clock.monotonic() - started_s
        prepared = table.served.prepared(slots).tolist()
        report.unprepared = len(whole) - sum(prepared)
        payloads: list[bytes] = []
        # Prepared symbols first: they need a single step, the others their whole window.
        for is_step in (True, False):
            part = [r for r, is_ready in zip(whole, prepared, strict=True) if is_ready == is_step]
            if part:
                payloads += await self._forecast(part, started_s, report, is_step=is_step)
        newest_ms = max((ready.candle.close_ms for ready in whole), default=0)
        self._issuer.publish_batch(payloads, newest_ms + table.timeframe.ms)
        self._accounting.on_flushed(report)
        return slots

    def _as_in_window(self, ready: Ready) -> Ready:
        """The candle with the values that its window holds: it may have been revised since."""
        if self._table.is_derived(ready.slot):
            return ready
        known = Ohlcv(*self._table.windows[ready.slot].ohlcv()[-1].tolist())
        return ready._replace(candle=ready.candle._replace(ohlcv=known))

    async def _update_features(self, batch: Sequence[Ready]) -> Slots:
        """Bring the scaled rows up to date; returns the batch's slots, shape ``(k,)``."""
        table = self._table
        stale = [ready.slot for ready in batch if not table.is_derived(ready.slot)]
        appended = [ready for ready in batch if table.is_derived(ready.slot)]
        if appended:
            slots = np.array([ready.slot for ready in appended], dtype=np.intp)
            table.served.advance(slots, _rows(appended))
        if stale:
            # Copied here, since candles may close while the worker thread computes.
            ohlcv = np.stack([table.windows[slot].ohlcv() for slot in stale])
            for slot in stale:
                table.derived[slot] = table.windows[slot].revision
            await self._scheduler.run_in_worker(
                table.served.rebuild, np.array(stale, dtype=np.intp), ohlcv
            )
            self.record_scalers()
        return np.array([ready.slot for ready in batch], dtype=np.intp)

    async def _forecast(
        self, batch: Sequence[Ready], started_s: float, report: FlushReport, *, is_step: bool
    ) -> list[bytes]:
        """Run one part of a flush and publish its forecasts; returns the messages.

        Args:
            batch: candles of symbols that are all prepared, or all not.
            started_s: when the flush began, monotonic.
            report: what is accounted for is added to it.
            is_step: whether they are prepared.
        """
        clock, accounting = self._clock, self._accounting
        inferring_s = clock.monotonic()
        slots = np.array([ready.slot for ready in batch], dtype=np.intp)
        raw = await self._run_network(slots, is_step=is_step)
        inferred_s = clock.monotonic()
        inference_s = inferred_s - inferring_s
        output = await self._price(batch, slots, raw)
        result = InferenceResult.collect(
            batch, self._table, output, started_s=started_s, inference_s=inference_s
        )
        payloads: list[bytes] = []
        encode_s = clock.monotonic() - inferred_s
        for part in _parts(result):
            encoding_s = clock.monotonic()
            issued = self._issuer.publish_forecasts(part)
            accounting.on_published(issued.forecasts)
            if issued.withheld:
                self._forget(issued.withheld)
                report.skipped += issued.withheld.values()
            payloads += issued.payloads
            encode_s += clock.monotonic() - encoding_s
            # The publisher sends these while the next are made.
            await clock.sleep(0)
        report.inference_s.append(inference_s)
        report.encode_s.append(encode_s)
        return payloads

    async def _run_network(self, slots: Slots, *, is_step: bool) -> npt.NDArray[np.float32]:
        """Raw output, shape ``(k,)``."""
        served = self._table.served
        if is_step:
            return served.step(slots)
        return await self._scheduler.run_in_worker(served.full, served.windows(slots))

    async def _price(
        self, batch: Sequence[Ready], slots: Slots, raw: npt.NDArray[np.float32]
    ) -> ModelOutput:
        """Turn raw output into prices with their outlook; NaN where the model failed its check."""
        served = self._table.served
        last = np.array([ready.candle.ohlcv.close for ready in batch], dtype=np.float64)
        prices = served.price(slots, raw, last)
        await self._remove_unchecked(batch, prices)
        opens = np.array([ready.candle.close_ms for ready in batch], dtype=np.int64)
        outlook = served.calibration.outlook(slots, prices, last, opens)
        return ModelOutput(raw, prices, last, outlook, served.out_of_range(slots))

    def _forget(self, withheld: Iterable[int]) -> None:
        """Have the calibration learn from published forecasts alone, as history tells them."""
        self._table.served.calibration.forget(np.array([*withheld], dtype=np.intp))

    async def check_model(self) -> None:
        """Check the model on every whole window that it was not checked on."""
        untried = self._table.untried_slots()
        for start in range(0, len(untried), _CHECK_BATCH_SIZE):
            await self._check(untried[start : start + _CHECK_BATCH_SIZE])

    async def _check(self, slots: Sequence[int]) -> None:
        """Compare the model's forecasts from whole windows with the last value."""
        table = self._table
        ohlcv = np.stack([table.windows[slot].ohlcv() for slot in slots])
        found = await self._scheduler.run_in_worker(
            faults, table.served, np.array(slots, dtype=np.intp), ohlcv
        )
        table.note_tried(slots, found)

    async def _remove_unchecked(
        self, batch: Sequence[Ready], price: npt.NDArray[np.float64]
    ) -> None:
        """Replace by NaN the prices of symbols that fail the check; those are checked again."""
        table = self._table
        slots = [ready.slot for ready in batch]
        untried = [slot for slot in slots if slot not in table.tried]
        if not untried:
            return
        before = set(table.faults)
        await self._check(untried)
        price[[slot in table.faults for slot in slots]] = np.nan
        if new := {slot: why for slot, why in table.faults.items() if slot not in before}:
            served = table.served
            why = summary(served.symbols, new, len(untried))
            log.error("model %s: %s; roll back: candlecast models rollback", served.version, why)

    def record_scalers(self) -> None:
        """Write down scalers that were just fitted, before the first forecast made with them."""
        served, now_ms = self._table.served, self._clock.wall_ms()
        model = served.version, served.sha256
        fitted = served.take_fitted().items()
        if fitted:
            self._recorder.record_scalers(
                [FittedScaler(model, symbol, now_ms, state) for symbol, state in fitted]
            )


def _rows(batch: Sequence[Ready]) -> npt.NDArray[np.float64]:
    """The candles as rows ``[k, 5]``; numpy reads named tuples one by one, at twice the cost."""
    values = chain.from_iterable([ready.candle.ohlcv for ready in batch])
    return np.fromiter(values, np.float64, 5 * len(batch)).reshape(-1, 5)


def _parts(result: InferenceResult) -> Iterator[InferenceResult]:
    """The result in parts of at most `_ISSUE_BATCH_SIZE` candles."""
    count = len(result.batch)
    if count <= _ISSUE_BATCH_SIZE:
        yield result
        return
    for start in range(0, count, _ISSUE_BATCH_SIZE):
        yield result.select(slice(start, start + _ISSUE_BATCH_SIZE))
