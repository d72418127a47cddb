"""Bring a new model up to date with all windows while another model forecasts from them."""

from __future__ import annotations

from functools import partial
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np

from daemon.forecast.idle_work import PREPARE_BATCH_SIZE
from model.core.errors import BundleError
from model.serving_check import doubtful, faults, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from daemon.candles.window import Window
    from daemon.forecast.scheduler import InferenceScheduler
    from daemon.runtime.clock import Clock
    from model.core.candle import Timeframe
    from model.serving import ServedModel

    Index = npt.NDArray[np.intp]

T = TypeVar("T")

_BATCH_SIZE: Final = 256
"""Symbols updated together at most: a row of this many costs twice that of one."""

_ROWS_PER_SLICE: Final = 16
"""Rows in one slice of the worker thread, some 2 ms: longer ones would delay closing candles."""

_MAX_MISSED_CANDLES: Final = 16
"""Symbols that have missed more candles are rebuilt from their whole window."""

_MAX_IDLE_WAIT_S: Final = 10.0
"""Longer than any burst of candles takes, together with the work after it."""

_MIN_IDLE_WAIT_S: Final = 0.01
"""How long each slice waits for an idle moment after `_MAX_IDLE_WAIT_S` is used up."""

_NEVER_APPLIED: Final = (-1, 0)
"""Revision and end of a window that the model has not seen."""


class AppliedCandles(NamedTuple):
    """Candles that a model has just been updated with.

    Attributes:
        idx: positions of the symbols, ``[k]``.
        end_ms: when their newest candles closed, Unix milliseconds, ``[k]``.
        ohlcv: their newest candles, at least the new ones, ``[k, rows, 5]``.
    """

    idx: Index
    end_ms: npt.NDArray[np.int64]
    ohlcv: npt.NDArray[np.float64]


class StandbyModel:
    """Updates a model from the windows in slices, each run while no candle waits for its forecast.

    Candles that close in the meantime are applied too, until the model has all of them.

    Attributes:
        checked: slots whose forecasts `check_forecasts` has found fit to publish.

    Args:
        served: the new model; only this object uses it.
        windows: of its symbols, in its order, a part of the pipeline's.
        scheduler: tells when the pipeline is idle, and runs work on its worker thread.
        clock: the injected clock.
        timeframe: of the candles.
    """

    def __init__(
        self,
        served: ServedModel,
        windows: Sequence[Window],
        scheduler: InferenceScheduler,
        clock: Clock,
        timeframe: Timeframe,
    ) -> None:
        self.served: Final = served
        self._windows = windows
        self._scheduler = scheduler
        self._clock = clock
        # When waiting for an idle pipeline ends, monotonic; set by the first `synchronise`.
        self._deadline_s = inf
        self._timeframe_ms = timeframe.ms
        # Of each window: revision and end of the candles that the model has.
        self._applied = [_NEVER_APPLIED] * len(windows)
        # Slots whose states are not prepared; a dict used as an ordered set.
        self._unprepared: dict[int, None] = {}
        self.checked: list[int] = []

    async def synchronise(self) -> None:
        """Return when the model has every whole window, prepared, and no candle waits.

        Where some candle closes at every moment, this does not happen. After `_MAX_IDLE_WAIT_S`,
        slices run between candles instead, and some states stay unprepared: their next forecast
        takes a little longer. The result holds until the caller awaits something.
        """
        self._deadline_s = min(self._deadline_s, self._clock.monotonic() + _MAX_IDLE_WAIT_S)
        while True:
            await self._scheduler.wait_idle(self._within_s())
            if self._clock.monotonic() >= self._deadline_s:
                while not self._scheduler.is_idle:
                    await self._clock.sleep(0)
                if self._apply_rest():
                    return
            if await self.catch_up() is not None:
                continue
            if self._unprepared:
                await self._prepare()
            elif self._scheduler.is_idle:
                return

    def _within_s(self) -> float:
        """Return how long to wait for an idle moment, in seconds."""
        return max(self._deadline_s - self._clock.monotonic(), _MIN_IDLE_WAIT_S)

    def _apply_rest(self) -> bool:
        """Apply a few missing candles without waiting; False if there are too many."""
        behind = self._behind()
        missed = {slot: self._missed(slot) for slot in behind}
        if len(behind) > _BATCH_SIZE or 0 in missed.values():
            return False
        for rows in set(missed.values()):
            slots = [slot for slot in behind if missed[slot] == rows]
            ohlcv = np.stack([self._windows[slot].ohlcv()[-rows:] for slot in slots])
            for _ in self._advancing(np.array(slots, dtype=np.intp), ohlcv):
                pass
        for slot in behind:
            self._applied[slot] = _version(self._windows[slot])
        return True

    async def catch_up(self) -> AppliedCandles | None:
        """Apply new candles of some whole windows; None, at once, if there are none."""
        behind = self._behind()
        return await self._apply(behind) if behind else None

    async def check_forecasts(self) -> None:
        """Compare a forecast from every applied window with the last value, in slices.

        Raises:
            BundleError: the forecasts of some symbol must not be published.
        """
        slots = np.array(
            [slot for slot, version in enumerate(self._applied) if version != _NEVER_APPLIED],
            dtype=np.intp,
        )
        found: dict[int, str] = {}
        for start in range(0, len(slots), PREPARE_BATCH_SIZE):
            part = slots[start : start + PREPARE_BATCH_SIZE]
            windows = self.served.windows(part)
            ohlcv = np.stack([self._windows[slot].ohlcv() for slot in part])
            raw = await self._run_when_idle(partial(self.served.full, windows))
            with np.errstate(over="ignore", invalid="ignore"):
                price = self.served.price(part, raw, ohlcv[:, -1, 3])
            # If a symbol's features cannot be scaled, no model could forecast a price from them.
            is_finite = np.asarray(np.isfinite(windows).all(axis=(1, 2)))
            suspects = doubtful(self.served, part, price, ohlcv[:, :, 3])
            suspects = suspects[is_finite[suspects]]
            if len(suspects):
                work = partial(faults, self.served, part[suspects], ohlcv[suspects])
                found |= await self._run_when_idle(work)
        if found:
            reason = summary(self.served.symbols, found, len(slots))
            msg = f"model {self.served.version} is not served: {reason}"
            raise BundleError(msg)
        self.checked = slots.tolist()

    def revisions(self) -> list[int]:
        """Return the revision of each window that the model has, -1 where it has none."""
        return [
            revision if window.is_complete else -1
            for (revision, _), window in zip(self._applied, self._windows, strict=True)
        ]

    async def _run_when_idle(self, work: Callable[[], T]) -> T:
        return await self._scheduler.run_when_idle(work, self._within_s())

    def _behind(self) -> list[int]:
        """Return the slots of whole windows with candles that the model does not have."""
        return [
            slot
            for slot, (window, version) in enumerate(zip(self._windows, self._applied, strict=True))
            if window.is_complete and _version(window) != version
        ]

    async def _apply(self, behind: Sequence[int]) -> AppliedCandles:
        """Apply the candles of the symbol furthest behind, and of others that miss as many."""
        # Those furthest behind first: symbols with frequent candles would delay them indefinitely.
        missed = self._missed(min(behind, key=lambda slot: self._applied[slot][1]))
        slots = [slot for slot in behind if self._missed(slot) == missed][:_BATCH_SIZE]
        versions = [_version(self._windows[slot]) for slot in slots]
        idx = np.array(slots, dtype=np.intp)
        # Copied here, because the windows change while the worker thread computes.
        ohlcv = np.stack([self._windows[slot].ohlcv()[-missed:] for slot in slots])
        work = self.served.rebuilding(idx, ohlcv) if not missed else self._advancing(idx, ohlcv)
        while await self._run_when_idle(partial(_run_slice, work)):
            pass
        for slot, version in zip(slots, versions, strict=True):
            self._applied[slot] = version
        self._unprepared |= dict.fromkeys(slots)
        return AppliedCandles(idx, np.array([end_ms for _, end_ms in versions]), ohlcv)

    def _missed(self, slot: int) -> int:
        """Return how many candles the model misses; 0 if it must be rebuilt from the window."""
        revision, end_ms = self._applied[slot]
        window = self._windows[slot]
        next_open_ms = window.next_open_ms or 0
        missed = (next_open_ms - end_ms) // self._timeframe_ms
        return missed if window.revision == revision and missed <= _MAX_MISSED_CANDLES else 0

    def _advancing(self, idx: Index, ohlcv: npt.NDArray[np.float64]) -> Iterator[None]:
        for row in range(ohlcv.shape[1]):
            self.served.advance(idx, ohlcv[:, row])
            yield

    async def _prepare(self) -> None:
        count = min(PREPARE_BATCH_SIZE, len(self._unprepared))
        slots = np.array([self._unprepared.popitem()[0] for _ in range(count)], dtype=np.intp)
        rows, stamps = self.served.preparation(slots)
        await self._run_when_idle(partial(self.served.prepare, slots, rows, stamps))


def _version(window: Window) -> tuple[int, int]:
    """Return the revision of a window and when its newest candle closed."""
    return window.revision, window.next_open_ms or 0


def _run_slice(work: Iterator[None]) -> bool:
    """Run some rows of ``work``; returns whether more may be left."""
    return sum(1 for _ in islice(work, _ROWS_PER_SLICE)) == _ROWS_PER_SLICE
