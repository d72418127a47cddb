"""The rolling window of one symbol: order, revisions and gaps, without I/O or clock."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from model.core.candle import Ohlcv, is_untraded

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from model.core.candle import Candle, Timeframe


_FILLED, _REPAIRED, _TOLD = 0, 1, 2
"""Ranks of candles, see `model.core.candle.Candle.rank`."""


class Verdict(Enum):
    """What became of a closed candle that was offered to a window."""

    APPENDED = "appended"
    DUPLICATE = "duplicate"
    REVISED = "revised"
    GAP = "gap"
    STALE = "stale"


class Window:
    """Consecutive closed candles of one symbol, the newest last.

    A candle that does not follow the newest one opens a gap: it waits beside the window until
    `repair` brings what is missing. While a gap is open the window is not `whole` and must not be
    forecast from.

    Attributes:
        revision: moves with every change but the plain appending of one candle; whoever derived
            something from the window must then derive it anew.
    """

    def __init__(self, symbol: str, timeframe: Timeframe, capacity: int) -> None:
        """Create an empty window.

        Args:
            symbol: ccxt symbol.
            timeframe: the grid of the candles.
            capacity: candles kept; `whole` needs all of them.
        """
        self.symbol = symbol
        self.revision = 0
        self._timeframe = timeframe
        self._capacity = capacity
        # Appending moves an end mark; the tail is copied down once per `slack` candles.
        slack = max(16, capacity // 4)
        self._values = np.empty((capacity + slack, 5), dtype=np.float64)
        self._rank = np.zeros(capacity + slack, dtype=np.uint8)
        self._untraded = np.zeros(capacity + slack, dtype=bool)
        # Candles behind the last one without a trade, and behind the last one that was repaired.
        self._since_untraded = 0
        self._since_repaired = capacity
        self._end = 0
        self._count = 0
        self._next_open_ms: int | None = None
        self._waiting: dict[int, Candle] = {}
        self._newest: Candle | None = None
        self._traded_ms: int | None = None

    @property
    def next_open_ms(self) -> int | None:
        """Opening time of the candle that may follow (Unix ms); None before the first repair."""
        return self._next_open_ms

    @property
    def newest(self) -> Candle | None:
        """The last candle that came from the exchange; None before the first."""
        return self._newest

    @property
    def traded_ms(self) -> int | None:
        """Opening time of the newest candle that the exchange has itself; None before the first."""
        return self._traded_ms

    @property
    def gap(self) -> tuple[int, int] | None:
        """The missing span ``[from_ms, to_ms)``; None when nothing waits behind a gap."""
        if not self._waiting:
            return None
        first = min(self._waiting)
        start = self._next_open_ms
        if start is None:
            start = first - self._capacity * self._timeframe.ms
        return start, first

    @property
    def whole(self) -> bool:
        """Whether the window is full and no candle is missing in it."""
        return self._count == self._capacity and not self._waiting

    def __len__(self) -> int:
        """Candles held, at most the capacity."""
        return self._count

    def ohlcv(self) -> npt.NDArray[np.float64]:
        """The candles as a view, shape ``(len, 5)``: open, high, low, close, volume."""
        return self._values[self._end - self._count : self._end]

    def filled(self, last: int) -> int:
        """How many of the ``last`` candles had no trade, whether the exchange sent them or not."""
        if self._since_untraded >= last:
            return 0
        return int(np.count_nonzero(self._untraded[max(0, self._end - last) : self._end]))

    def repaired(self, last: int) -> int:
        """How many of the ``last`` candles had values that had to be put right."""
        if self._since_repaired >= last:
            return 0
        ranks = self._rank[max(0, self._end - last) : self._end]
        return int(np.count_nonzero(ranks == _REPAIRED))

    def add(self, candle: Candle) -> Verdict:
        """Offer one closed candle of this symbol."""
        following = self._next_open_ms
        if following is None or candle.open_ms > following:
            self._wait(candle)
            return Verdict.GAP
        if candle.open_ms == following:
            # A candle that waits behind an earlier gap may sit here already.
            self._waiting.pop(candle.open_ms, None)
            self._append(candle)
            if self._waiting and self._drain():
                self.revision += 1
            return Verdict.APPENDED
        return self._revise(candle)

    def repair(self, candles: Iterable[Candle]) -> int:
        """Merge closed candles from the exchange's history, ascending and possibly overlapping.

        Periods that the history leaves out between two of its candles had no trade; the last
        close stands in for them, with zero volume.

        Returns:
            How many candles were appended, waiting ones included.
        """
        appended = 0
        for candle in candles:
            if self._next_open_ms is None:
                self._next_open_ms = candle.open_ms
            if candle.open_ms < self._next_open_ms:
                self._revise(candle)
                continue
            appended += self._fill_until(candle.open_ms)
            waiting = self._waiting.pop(candle.open_ms, candle)
            self._append(waiting if waiting.rank > candle.rank else candle)
            appended += 1
        appended += self._drain()
        if appended:
            self.revision += 1
        return appended

    def start_over(self) -> None:
        """Forget every candle but those that wait; the next `repair` begins the window anew."""
        self._count = 0

    def _wait(self, candle: Candle) -> None:
        self._waiting[candle.open_ms] = candle
        if len(self._waiting) > self._capacity:
            # Behind a gap of a whole window the older waiting candles can never be used.
            del self._waiting[min(self._waiting)]

    def _drain(self) -> int:
        drained = 0
        for open_ms in sorted(self._waiting):
            if self._next_open_ms is None or open_ms > self._next_open_ms:
                break
            candle = self._waiting.pop(open_ms)
            if open_ms < self._next_open_ms:
                # It waited for a beginning that turned out to be later, or for a filled period.
                self._revise(candle)
                continue
            self._append(candle)
            drained += 1
        return drained

    def _fill_until(self, open_ms: int) -> int:
        if self._count == 0 or self._next_open_ms is None:
            self._next_open_ms = open_ms
            return 0
        missing = (open_ms - self._next_open_ms) // self._timeframe.ms
        if missing > self._capacity:
            # Nothing of the old window would remain: start over instead of writing flat candles.
            self._count = 0
            self._next_open_ms = open_ms
            return 0
        for _ in range(missing):
            close = float(self._values[self._end - 1, 3])
            self._push(Ohlcv(close, close, close, close, 0.0), _FILLED)
        return missing

    def _append(self, candle: Candle) -> None:
        self._next_open_ms = candle.open_ms
        self._newest = candle
        if not candle.filled:
            self._traded_ms = candle.open_ms
        self._push(candle.ohlcv, candle.rank)

    def _push(self, ohlcv: Ohlcv, rank: int) -> None:
        if self._end == len(self._values):
            kept = min(self._count, self._capacity - 1)
            for rows in (self._values, self._rank, self._untraded):
                rows[:kept] = rows[self._end - kept : self._end]
            self._end = kept
        at = self._end
        self._values[at] = ohlcv
        self._rank[at] = rank
        self._end += 1
        self._count = min(self._count + 1, self._capacity)
        self._since_untraded += 1
        self._since_repaired += 1
        if rank == _TOLD and ohlcv.volume:
            # Nearly every candle; reading single numbers from arrays would double its cost.
            self._untraded[at] = False
        else:
            self._note(at, ohlcv)
        assert self._next_open_ms is not None  # noqa: S101 - every caller has set it
        self._next_open_ms += self._timeframe.ms

    def _note(self, at: int, ohlcv: Ohlcv) -> None:
        """Note whether the candle in a row had a trade, and whether it was repaired."""
        has_before = at > self._end - self._count
        before = float(self._values[at - 1, 3]) if has_before else None
        self._untraded[at] = self._rank[at] == _FILLED or is_untraded(ohlcv, before)
        if self._untraded[at]:
            self._since_untraded = min(self._since_untraded, self._end - 1 - at)
        if self._rank[at] == _REPAIRED:
            self._since_repaired = min(self._since_repaired, self._end - 1 - at)

    def _revise(self, candle: Candle) -> Verdict:
        assert self._next_open_ms is not None  # noqa: S101 - only called behind a known end
        age = (self._next_open_ms - candle.open_ms) // self._timeframe.ms
        if age > self._count:
            return Verdict.STALE
        at = self._end - age
        # What was concluded or put right does not replace what the exchange told.
        if candle.rank < self._rank[at] or tuple(self._values[at]) == tuple(candle.ohlcv):
            return Verdict.DUPLICATE
        self._values[at] = candle.ohlcv
        self._rank[at] = candle.rank
        self._note(at, candle.ohlcv)
        if at + 1 < self._end:
            # Whether the next one had a trade depends on the close before it.
            self._note(at + 1, Ohlcv(*self._values[at + 1].tolist()))
        self.revision += 1
        return Verdict.REVISED
