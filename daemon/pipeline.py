"""The path of a candle, from its close to its forecast; read it from `on_closed` downwards."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from daemon.batcher import Batcher, Ready
from daemon.catchup import CatchUp
from daemon.issuer import Issuer, Run
from daemon.window import Verdict, Window
from model.candle import Ohlcv
from model.history import FittedScaler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from daemon.clock import Clock
    from daemon.ledger import Books
    from model.candle import Candle
    from model.forecast import Market
    from model.serving import ServedModel

    Slots = npt.NDArray[np.intp]

T = TypeVar("T")

_SENT_TOGETHER = 64

_DELIVERY_MS = 3_000
"""Exchanges deliver the close up to two seconds late; one more before that counts as silence."""


def _rows(batch: Sequence[Ready]) -> npt.NDArray[np.float64]:
    """The candles as rows ``[k, 5]``; numpy looks at named tuples one by one, at a double cost."""
    values = chain.from_iterable([ready.candle.ohlcv for ready in batch])
    return np.fromiter(values, np.float64, 5 * len(batch)).reshape(-1, 5)


def _nothing() -> None:
    """What a ping asks of the inference thread."""


class Pipeline:
    """Windows, features and inference of all symbols.

    Attributes:
        timeframe: of the candles.
        windows: of every symbol, in the order of their slots; those of guests come last.
        closed_ms: when the candle closed that came last from the live stream, Unix milliseconds.
    """

    def __init__(
        self,
        market: Market,
        served: ServedModel,
        batcher: Batcher,
        issuer: Issuer,
        books: Books,
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
        self._served = served
        self._batcher = batcher
        self._issuer = issuer
        self._ledger = issuer.ledger
        self._books = books
        self._clock = clock
        self._request_repair = request_repair
        self.timeframe: Final = market.timeframe
        self._capacity = capacity
        self.closed_ms = 0
        self._slots: dict[str, int] = {}
        self.windows: list[Window] = []
        self.invite(market.symbols)
        # One entry for each window that is forecast from; those of guests come after them.
        self._derived = [-1] * len(market.symbols)
        self._busy = False
        self._progress_s = 0.0
        self._wake = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._catch_up = CatchUp(
            self._ledger, self._worker, clock, lambda: self._served, lambda: self.is_idle
        )

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
            self._books.recorder.candle(candle)
        metrics.count_candle(verdict.value)
        now_s = self._clock.monotonic()
        self._catch_up.arrived(now_s)
        metrics.stage("receive", now_s - candle.received_s)

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
                self._books.recorder.candle(candle)
                self._books.metrics.count_candle(Verdict.REVISED.value)
        new = [candle for candle in candles if candle.open_ms >= following_ms]
        if not window.repair(new):
            return
        for candle in new:
            self._books.recorder.candle(candle)
            self._ledger.score(candle)
        # Of what came together only the newest is forecast from, if nothing is missing before it.
        self._count_overtaken(window, following_ms + self.timeframe.ms * window.whole)
        if window.whole:
            self._enqueue(slot)

    def _count_overtaken(self, window: Window, since_ms: int) -> None:
        """Account for candles that had a successor before they could be forecast from."""
        # Before the first forecast of a symbol none is missed.
        if window.symbol in self._ledger.newest and window.next_open_ms is not None:
            overtaken = (window.next_open_ms - since_ms) // self.timeframe.ms
            self._books.metrics.count_skipped("gap", overtaken)

    def invite(self, symbols: Sequence[str]) -> list[Window]:
        """Fill windows of further symbols; nothing is forecast from them until `take_over`."""
        first = len(self.windows)
        self.windows = self.windows + [Window(s, self.timeframe, self._capacity) for s in symbols]
        self._slots |= {symbol: slot for slot, symbol in enumerate(symbols, first)}
        return self.windows[first:]

    def dismiss(self) -> None:
        """Forget the invited windows that nothing is forecast from."""
        for window in self.windows[len(self._derived) :]:
            del self._slots[window.symbol]
        self.windows = self.windows[: len(self._derived)]

    def _enqueue(self, slot: int) -> None:
        if slot >= len(self._derived):
            return
        newest = self.windows[slot].newest
        assert newest is not None  # noqa: S101 - a candle was just appended
        if not len(self._batcher):
            self._progress_s = self._clock.monotonic()
        self._drop(self._batcher.add(slot, newest))
        self._catch_up.stand_back()
        self._wake.set()

    def _drop(self, ready: Ready | None) -> None:
        """Account for a candle that gets no forecast, since a newer one has closed."""
        if ready is not None:
            # The features never saw it, so they start over from the window.
            self._derived[ready.slot] = -1
            self._books.metrics.count_dropped(1)
            self._ledger.score(ready.candle)

    @property
    def served(self) -> ServedModel:
        """The model at work."""
        return self._served

    def awaits(self, candle: Candle) -> int | None:
        """The symbol's slot, if its features are ready for just this candle to come next."""
        slot = self._slots.get(candle.symbol)
        if slot is None or slot >= len(self._derived):
            return None
        window = self.windows[slot]
        ready = window.whole and self._derived[slot] == window.revision
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

    def take_over(self, served: ServedModel, windows: Sequence[Window], derived: list[int]) -> None:
        """Forecast by another model from the next batch on; call it when `settled` has returned.

        Args:
            served: its states prepared.
            windows: of its symbols, in its order, out of these here; all others are forgotten.
            derived: the revision of each window that it has taken in; -1: not this one.
        """
        assert self.is_idle  # noqa: S101 - a batch must be from one model
        self._served, self.windows, self._derived = served, list(windows), derived
        self._note_scalers()
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
        """Symbols that are not forecast at ``now_ms``.

        Their window is not whole, their next candle is overdue, or there was no trade for so long
        that all of what they would be forecast from stands in for candles.
        """
        return [window.symbol for window in self.windows if self._is_stale(window, now_ms)]

    def _is_stale(self, window: Window, now_ms: int) -> bool:
        due_ms = (window.next_open_ms or 0) + self.timeframe.ms + _DELIVERY_MS
        lookback = self._served.lookback
        return not window.whole or now_ms > due_ms or window.filled(lookback) == lookback

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
                await self._flush(batch)
                self._busy = False
                self._progress_s = self._clock.monotonic()
                # Lets what arrived meanwhile into the next batch.
                await self._clock.sleep(0)
            self._catch_up.go_on()

    async def _flush(self, batch: Sequence[Ready]) -> None:
        """Everything between candles that closed together and their forecasts."""
        if self._ledger.owes(batch):
            self._ledger.settle()
        started_s = self._clock.monotonic()
        metrics = self._books.metrics
        metrics.batch_size.observe(len(batch))
        whole = [self._as_known(ready) for ready in batch if self.windows[ready.slot].whole]
        metrics.count_skipped("window", len(batch) - len(whole))
        slots = await self._derive(whole)
        metrics.stage("features", self._clock.monotonic() - started_s)
        prepared = self._served.prepared(slots).tolist()
        messages: list[bytes] = []
        # Prepared symbols first: they need a single step, the others their whole window.
        for quick in (True, False):
            part = [r for r, is_quick in zip(whole, prepared, strict=True) if is_quick == quick]
            if part:
                messages += await self._infer(part, started_s, quick=quick)
        newest_ms = max((ready.candle.close_ms for ready in whole), default=0)
        self._issuer.issue_batch(messages, newest_ms + self.timeframe.ms)
        metrics.count_unprepared(len(whole) - sum(prepared))
        self._ledger.closed(batch)
        self._catch_up.put_off(slots.tolist())

    def _as_known(self, ready: Ready) -> Ready:
        """The candle with the values that its window holds: it may have been revised since."""
        window = self.windows[ready.slot]
        if self._derived[ready.slot] == window.revision:
            return ready
        known = Ohlcv(*window.ohlcv()[-1].tolist())
        return ready._replace(candle=ready.candle._replace(ohlcv=known))

    async def _derive(self, batch: Sequence[Ready]) -> Slots:
        """Bring the scaled rows up to date; returns the batch's slots, shape ``(k,)``."""
        moved = [r.slot for r in batch if self._derived[r.slot] != self.windows[r.slot].revision]
        appended = [r for r in batch if self._derived[r.slot] == self.windows[r.slot].revision]
        if appended:
            self._served.advance(
                np.array([r.slot for r in appended], dtype=np.intp),
                _rows(appended),
            )
        if moved:
            # Copied here, since the windows go on changing while the worker thread computes.
            ohlcv = np.stack([self.windows[slot].ohlcv() for slot in moved])
            for slot in moved:
                self._derived[slot] = self.windows[slot].revision
            await asyncio.get_running_loop().run_in_executor(
                self._worker, self._served.rebuild, np.array(moved, dtype=np.intp), ohlcv
            )
            self._note_scalers()
        return np.array([r.slot for r in batch], dtype=np.intp)

    def _note_scalers(self) -> None:
        """Have scalers that were fitted just now written down, before what is forecast by them."""
        served, now_ms = self._served, self._clock.wall_ms()
        for symbol, state in served.take_fitted().items():
            model = served.version, served.sha256
            self._books.recorder.scaler(FittedScaler(model, symbol, now_ms, state))

    async def _infer(self, batch: Sequence[Ready], started_s: float, *, quick: bool) -> list[bytes]:
        """Run one part of a flush and hand out its forecasts."""
        served, metrics, clock = self._served, self._books.metrics, self._clock
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
        prices = served.price(slots, raw, last)
        opens = np.array([ready.candle.close_ms for ready in batch], dtype=np.int64)
        outlook = served.calibration.outlook(slots, prices, last, opens)
        told = raw, prices, last, outlook, served.out_of_range(slots)
        run = Run.of(batch, (served, self.windows), (started_s, inferred_s - inferring_s), told)
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
        metrics.stage("inference", run.inference_s)
        metrics.stage("encode", encode_s)
        return messages
