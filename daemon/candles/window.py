"""Keep the newest closed candles of one symbol in order, through revisions and gaps.

No I/O, no clock.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import TYPE_CHECKING, Final

import numpy as np

from model.core.candle import Ohlcv, is_untraded

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from model.core.candle import Candle, Timeframe


_FILLED, _REPAIRED, _RECEIVED = 0, 1, 2
"""Ranks of candles, see `model.core.candle.Candle.rank`."""


_ROW: Final = Struct("=5d")
"""A candle's values as they lie in the array."""


class CandleOutcome(Enum):
    """What a window did with a closed candle."""

    APPENDED = "appended"
    DUPLICATE = "duplicate"
    REVISED = "revised"
    GAP = "gap"
    STALE = "stale"


class Window:
    """Consecutive closed candles of one symbol, the newest last.

    A candle that does not follow the newest one opens a gap: it waits beside the window until
    the missing ones are merged from the history. A window with a gap is not `is_complete`, and no
    forecast may be made from it.

    Attributes:
        revision: increases with every change other than appending one candle; values derived from
            the window are then out of date.
    """

    def __init__(self, symbol: str, timeframe: Timeframe, capacity: int) -> None:
        """Create an empty window.

        Args:
            symbol: ccxt symbol.
            timeframe: the grid of the candles.
            capacity: candles kept; `is_complete` needs all of them.
        """
        self.symbol = symbol
        self.revision = 0
        self._timeframe = timeframe
        self._capacity = capacity
        # Appending moves `_end`; the newest candles are copied to the front once per `slack`.
        slack = max(16, capacity // 4)
        # Open, high, low, close, volume per row; the newest candle is at `_end - 1`.
        self._values = np.empty((capacity + slack, 5), dtype=np.float64)
        self._bytes = self._values.data.cast("B")
        self._rank = np.zeros(capacity + slack, dtype=np.uint8)
        self._untraded = np.zeros(capacity + slack, dtype=bool)
        # Candles after the last one without a trade, and after the last one that was repaired.
        self._since_untraded = 0
        self._since_repaired = capacity
        self._end = 0
        self._count = 0
        self._next_open_ms: int | None = None
        # Candles behind a gap, by opening time.
        self._waiting: dict[int, Candle] = {}
        self._newest: Candle | None = None
        self._traded_ms: int | None = None

    @property
    def next_open_ms(self) -> int | None:
        """Opening time of the candle that may follow (Unix ms); None before the first repair."""
        return self._next_open_ms

    @property
    def newest(self) -> Candle | None:
        """The last candle received from the exchange; None before the first."""
        return self._newest

    @property
    def traded_ms(self) -> int | None:
        """Opening time of the newest candle that was not filled here; None before the first."""
        return self._traded_ms

    @property
    def gap(self) -> tuple[int, int] | None:
        """The missing span ``[from_ms, to_ms)``; None if no candle waits behind a gap."""
        if not self._waiting:
            return None
        first = min(self._waiting)
        start = self._next_open_ms
        if start is None:
            start = first - self._capacity * self._timeframe.ms
        return start, first

    @property
    def is_complete(self) -> bool:
        """Whether the window is full and no candle is missing in it."""
        return self._count == self._capacity and not self._waiting

    def __len__(self) -> int:
        """Candles held, at most the capacity."""
        return self._count

    def ohlcv(self) -> npt.NDArray[np.float64]:
        """The candles as a view, shape ``(len, 5)``: open, high, low, close, volume."""
        return self._values[self._end - self._count : self._end]

    def count_untraded(self, last: int) -> int:
        """How many of the ``last`` candles had no trade, sent by the exchange or filled here."""
        if self._since_untraded >= last:
            return 0
        return int(np.count_nonzero(self._untraded[max(0, self._end - last) : self._end]))

    def count_repaired(self, last: int) -> int:
        """How many of the ``last`` candles had values that were corrected."""
        if self._since_repaired >= last:
            return 0
        ranks = self._rank[max(0, self._end - last) : self._end]
        return int(np.count_nonzero(ranks == _REPAIRED))

    def add_closed(self, candle: Candle) -> CandleOutcome:
        """Take one closed candle of this symbol."""
        following = self._next_open_ms
        if following is None or candle.open_ms > following:
            self._wait(candle)
            return CandleOutcome.GAP
        if candle.open_ms == following:
            # The same candle may be waiting behind an earlier gap.
            self._waiting.pop(candle.open_ms, None)
            self._append(candle)
            if self._waiting and self._drain():
                self.revision += 1
            return CandleOutcome.APPENDED
        return self._revise(candle)

    def merge_history(self, candles: Iterable[Candle]) -> int:
        """Merge closed candles from the exchange's history, ascending and possibly overlapping.

        Periods that the history leaves out between two of its candles had no trade; they are
        filled with the last close and zero volume.

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
        """Drop every candle except those that wait; the next merge starts a new window."""
        self._count = 0

    def _wait(self, candle: Candle) -> None:
        self._waiting[candle.open_ms] = candle
        if len(self._waiting) > self._capacity:
            # Behind a gap as long as the window, the oldest waiting candles cannot be used.
            del self._waiting[min(self._waiting)]

    def _drain(self) -> int:
        drained = 0
        for open_ms in sorted(self._waiting):
            if self._next_open_ms is None or open_ms > self._next_open_ms:
                break
            candle = self._waiting.pop(open_ms)
            if open_ms < self._next_open_ms:
                # The window started later than this candle, or its period was filled.
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
            # Nothing of the old window would remain, so start a new one without filling.
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
        # A third of the time that assigning to the array takes.
        _ROW.pack_into(self._bytes, at * _ROW.size, *ohlcv)
        self._rank[at] = rank
        self._end += 1
        self._count = min(self._count + 1, self._capacity)
        self._since_untraded += 1
        self._since_repaired += 1
        if rank == _RECEIVED and ohlcv.volume:
            # The usual case; reading single numbers from arrays would double its cost.
            self._untraded[at] = False
        else:
            self._note_quality(at, ohlcv)
        assert self._next_open_ms is not None  # noqa: S101 - every caller has set it
        self._next_open_ms += self._timeframe.ms

    def _note_quality(self, at: int, ohlcv: Ohlcv) -> None:
        """Note whether the candle at a row had a trade, and whether it was repaired."""
        has_before = at > self._end - self._count
        before = float(self._values[at - 1, 3]) if has_before else None
        self._untraded[at] = self._rank[at] == _FILLED or is_untraded(ohlcv, before)
        if self._untraded[at]:
            self._since_untraded = min(self._since_untraded, self._end - 1 - at)
        if self._rank[at] == _REPAIRED:
            self._since_repaired = min(self._since_repaired, self._end - 1 - at)

    def _revise(self, candle: Candle) -> CandleOutcome:
        assert self._next_open_ms is not None  # noqa: S101 - only called behind a known end
        age = (self._next_open_ms - candle.open_ms) // self._timeframe.ms
        if age > self._count:
            return CandleOutcome.STALE
        at = self._end - age
        # A filled or corrected candle does not replace one received as it is.
        if candle.rank < self._rank[at] or tuple(self._values[at]) == tuple(candle.ohlcv):
            return CandleOutcome.DUPLICATE
        self._values[at] = candle.ohlcv
        self._rank[at] = candle.rank
        self._note_quality(at, candle.ohlcv)
        if at + 1 < self._end:
            # Whether the next candle had a trade depends on the close before it.
            self._note_quality(at + 1, Ohlcv(*self._values[at + 1].tolist()))
        self.revision += 1
        return CandleOutcome.REVISED
