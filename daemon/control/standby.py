"""A model that is brought level with the windows while another one forecasts from them."""

from __future__ import annotations

from functools import partial
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np

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

_TOGETHER: Final = 256
"""Symbols taken in together: a row of so many costs twice that of one."""

_ROWS: Final = 16
"""Rows in one slice of the worker thread, some 2 ms: longer ones would hold up closing candles."""

_PREPARED_TOGETHER: Final = 32
_MOST_MISSED: Final = 16
"""Symbols that have missed more candles are taken in anew."""

_PATIENCE_S: Final = 10.0
"""Longer than any burst, and the work between two of them, takes."""

_HASTE_S: Final = 0.01

_UNSEEN: Final = (-1, 0)


class Taken(NamedTuple):
    """Windows that a model has just taken in.

    Attributes:
        idx: positions of the symbols, ``[k]``.
        end_ms: when their newest candles closed, Unix milliseconds, ``[k]``.
        ohlcv: their newest candles, those that are new at least, ``[k, rows, 5]``.
    """

    idx: Index
    end_ms: npt.NDArray[np.int64]
    ohlcv: npt.NDArray[np.float64]


class StandbyModel:
    """Takes in what the windows hold, in slices, each while no candle waits for its forecast.

    What closes meanwhile is caught up with, until there is a moment at which nothing is missing.

    Attributes:
        tried: slots that `try_out` has found no fault with.

    Args:
        served: a model that nobody else uses yet.
        windows: of its symbols, in its order, out of the pipeline's.
        scheduler: tells when there is time, and runs slices in its worker thread.
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
        self._hasty_s = inf
        self._timeframe_ms = timeframe.ms
        # Of each window: revision and end of what the model has taken in.
        self._seen = [_UNSEEN] * len(windows)
        self._unprepared: dict[int, None] = {}
        self.tried: list[int] = []

    async def level(self) -> None:
        """Return at a moment at which every whole window is taken in and prepared, none waiting.

        Where something closes all the time there is no such moment. After some patience slices are
        run between candles instead, and in the end some windows are not prepared: their next
        forecast takes a little longer. The moment lasts until the caller awaits something.
        """
        self._hasty_s = min(self._hasty_s, self._clock.monotonic() + _PATIENCE_S)
        while True:
            await self._scheduler.wait_idle(self._within_s())
            if self._clock.monotonic() >= self._hasty_s:
                while not self._scheduler.is_idle:
                    await self._clock.sleep(0)
                if self._take_in_rest():
                    return
            if await self.catch_up() is not None:
                continue
            if self._unprepared:
                await self._prepare()
            elif self._scheduler.is_idle:
                return

    def _within_s(self) -> float:
        """How long to wait for a moment at which nothing else is to do."""
        return max(self._hasty_s - self._clock.monotonic(), _HASTE_S)

    def _take_in_rest(self) -> bool:
        """Take in at once what little is missing; False if it is not little."""
        behind = self._behind()
        missed = {slot: self._missed(slot) for slot in behind}
        if len(behind) > _TOGETHER or 0 in missed.values():
            return False
        for rows in set(missed.values()):
            slots = [slot for slot in behind if missed[slot] == rows]
            ohlcv = np.stack([self._windows[slot].ohlcv()[-rows:] for slot in slots])
            for _ in self._advancing(np.array(slots, dtype=np.intp), ohlcv):
                pass
        for slot in behind:
            self._seen[slot] = _mark(self._windows[slot])
        return True

    async def catch_up(self) -> Taken | None:
        """Take in some of the whole windows that have moved on; None, at once, if there is none."""
        behind = self._behind()
        return await self._take_in(behind) if behind else None

    async def try_out(self) -> None:
        """Hold a forecast from every window that was taken in against the last value, in slices.

        Raises:
            BundleError: the forecasts of some symbol must not be published.
        """
        slots = np.array([s for s, seen in enumerate(self._seen) if seen != _UNSEEN], dtype=np.intp)
        found: dict[int, str] = {}
        for start in range(0, len(slots), _PREPARED_TOGETHER):
            part = slots[start : start + _PREPARED_TOGETHER]
            windows = self.served.windows(part)
            ohlcv = np.stack([self._windows[slot].ohlcv() for slot in part])
            raw = await self._aside(partial(self.served.full, windows))
            with np.errstate(over="ignore", invalid="ignore"):
                price = self.served.price(part, raw, ohlcv[:, -1, 3])
            # Where a symbol's own numbers cannot be scaled, no model could make a price of them.
            scaled = np.asarray(np.isfinite(windows).all(axis=(1, 2)))
            doubts = doubtful(self.served, part, price, ohlcv[:, :, 3])
            doubts = doubts[scaled[doubts]]
            if len(doubts):
                work = partial(faults, self.served, part[doubts], ohlcv[doubts])
                found |= await self._aside(work)
        if found:
            why = summary(self.served.symbols, found, len(slots))
            msg = f"model {self.served.version} is not served: {why}"
            raise BundleError(msg)
        self.tried = slots.tolist()

    def derived(self) -> list[int]:
        """The revision of each window that the model has taken in, -1 where it has not."""
        return [
            revision if window.whole else -1
            for (revision, _), window in zip(self._seen, self._windows, strict=True)
        ]

    async def _aside(self, work: Callable[[], T]) -> T:
        return await self._scheduler.run_when_idle(work, self._within_s())

    def _behind(self) -> list[int]:
        return [
            slot
            for slot, (window, seen) in enumerate(zip(self._windows, self._seen, strict=True))
            if window.whole and _mark(window) != seen
        ]

    async def _take_in(self, behind: Sequence[int]) -> Taken:
        """Catch up with some of the symbols that lack the same number of candles."""
        # Those that are furthest behind, or others that move on all the time would always go first.
        missed = self._missed(min(behind, key=lambda slot: self._seen[slot][1]))
        slots = [slot for slot in behind if self._missed(slot) == missed][:_TOGETHER]
        marks = [_mark(self._windows[slot]) for slot in slots]
        idx = np.array(slots, dtype=np.intp)
        # Copied here, since the windows go on changing while the worker thread computes.
        ohlcv = np.stack([self._windows[slot].ohlcv()[-missed:] for slot in slots])
        work = self.served.rebuilding(idx, ohlcv) if not missed else self._advancing(idx, ohlcv)
        while await self._aside(partial(_slice, work)):
            pass
        for slot, mark in zip(slots, marks, strict=True):
            self._seen[slot] = mark
        self._unprepared |= dict.fromkeys(slots)
        return Taken(idx, np.array([end_ms for _, end_ms in marks]), ohlcv)

    def _missed(self, slot: int) -> int:
        """Candles that were appended since; 0 where the whole window has to be taken in."""
        revision, end_ms = self._seen[slot]
        window = self._windows[slot]
        following_ms = window.next_open_ms or 0
        missed = (following_ms - end_ms) // self._timeframe_ms
        return missed if window.revision == revision and missed <= _MOST_MISSED else 0

    def _advancing(self, idx: Index, ohlcv: npt.NDArray[np.float64]) -> Iterator[None]:
        for row in range(ohlcv.shape[1]):
            self.served.advance(idx, ohlcv[:, row])
            yield

    async def _prepare(self) -> None:
        most = min(_PREPARED_TOGETHER, len(self._unprepared))
        slots = np.array([self._unprepared.popitem()[0] for _ in range(most)], dtype=np.intp)
        rows, stamps = self.served.preparation(slots)
        await self._aside(partial(self.served.prepare, slots, rows, stamps))


def _mark(window: Window) -> tuple[int, int]:
    return window.revision, window.next_open_ms or 0


def _slice(work: Iterator[None]) -> bool:
    """Go on with ``work`` for a while; whether some may be left."""
    return sum(1 for _ in islice(work, _ROWS)) == _ROWS
