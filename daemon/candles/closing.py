"""The closed-candle rule: which update makes a candle final. No I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from model.core.candle import (
    Candle,
    Ohlcv,
    check_open_ms,
    is_untraded,
    repair_ohlcv,
    streamed_ohlcv,
)
from model.core.errors import BadCandle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.core.candle import FinalBy, Repaired, Timeframe


GRACE_MS: Final = 2_500
"""Exchanges deliver the close of a candle up to two seconds after its boundary."""

_QUIET_MS: Final = 8_000
"""An exchange whose history still lacks a candle so long after its boundary had no trade in it."""

LastTrade = tuple[int, float]
"""Opening time (Unix ms) and volume of a candle: while trades come in, it grows."""


def grace_ms(timeframe: Timeframe) -> int:
    """How long after its boundary a candle in the exchange's history may still change."""
    return min(GRACE_MS, timeframe.ms // 4)


class Answer(NamedTuple):
    """What a page of an exchange's history is worth.

    Attributes:
        final: its closed candles, ascending.
        impossible: why rows of it cannot be true.
        unusable: opening times of the periods that are over and of which such a row is all there
            is. Left out of ``final``, they look like periods without trades.
        pending_ms: when the first candle opened that it holds but that is not final; None if
            there is none.
    """

    final: list[Candle]
    impossible: list[BadCandle]
    unusable: frozenset[int]
    pending_ms: int | None


def read_rest(
    symbol: str,
    rows: Sequence[Sequence[object]],
    timeframe: Timeframe,
    earliest_ms: int | None,
    arrived: tuple[int, float],
) -> Answer:
    """Pick the final candles from an answer of the exchange's history.

    What counts is when the question was asked: the answer holds the candle that was forming then,
    and that may have closed by the time it arrives.

    Args:
        symbol: ccxt symbol.
        rows: opening time, open, high, low, close, volume of each candle, ascending.
        timeframe: the grid.
        earliest_ms: what the exchange's clock showed at least when the request was sent; None if
            that is not known: then a candle is final only if the answer holds a later one.
        arrived: wall clock (ms) and monotonic clock (s) when the answer came.
    """
    known: dict[int, Repaired] = {}
    impossible: list[BadCandle] = []
    periods: set[int] = set()
    following_ms: int | None = None
    for row in rows:
        period_ms = _period_of(row, timeframe, following_ms, arrived[0])
        following_ms = None if period_ms is None else period_ms + timeframe.ms
        try:
            opened = check_open_ms(row[0] if row else None, timeframe, arrived[0])
            told = repair_ohlcv(tuple(row[1:6]))
        except BadCandle as error:
            impossible.append(error)
            if period_ms is not None:
                periods.add(period_ms)
            continue
        # Of two rows for one candle the later one counts, as the later of two revisions does.
        if opened not in known or not told.repaired:
            known[opened] = told
    newest_ms = max(known, default=0)
    over_ms = newest_ms if earliest_ms is None else earliest_ms - grace_ms(timeframe)
    final = [
        Candle(
            symbol, opened, opened + timeframe.ms, told.ohlcv, *arrived, "rest",
            repaired=told.repaired,
        )
        for opened, told in sorted(known.items())
        if opened + timeframe.ms <= over_ms
    ]  # fmt: skip
    periods -= known.keys()
    unusable = frozenset(opened for opened in periods if opened + timeframe.ms <= over_ms)
    pending = (at for at in (*known, *periods) if at + timeframe.ms > over_ms)
    return Answer(final, impossible, unusable, min(pending, default=None))


def _period_of(
    row: Sequence[object], timeframe: Timeframe, following_ms: int | None, now_ms: int
) -> int | None:
    """Which period a row stands for, by its time or by its place; None if neither tells.

    Args:
        row: opening time and values.
        timeframe: the grid.
        following_ms: the period after that of the row before; None if it is not known.
        now_ms: wall clock, Unix milliseconds.
    """
    opened = row[0] if row else None
    if isinstance(opened, bool) or not isinstance(opened, int):
        return following_ms
    try:
        return check_open_ms(timeframe.floor(opened), timeframe, now_ms)
    except (BadCandle, OverflowError):
        return following_ms


def newest_traded(
    rows: Sequence[Sequence[object]], timeframe: Timeframe, now_ms: int
) -> tuple[int, float] | None:
    """Opening time and volume of the newest candle with trades in an answer of the history."""
    traded = []
    close: float | None = None
    for row in rows:
        try:
            opened = check_open_ms(row[0] if row else None, timeframe, now_ms)
            ohlcv = repair_ohlcv(tuple(row[1:6])).ohlcv
        except BadCandle:
            continue
        if not is_untraded(ohlcv, close):
            traded.append((opened, ohlcv.volume))
        close = ohlcv.close
    return max(traded, default=None)


def quiet_until_ms(
    pending_ms: int | None, timeframe: Timeframe, earliest_ms: int | None
) -> int | None:
    """Up to which boundary the periods that a history leaves out had no trade; None: unknown.

    Args:
        pending_ms: when the first candle opened that the history holds and that is not final;
            None if there is none.
        timeframe: the grid.
        earliest_ms: what the exchange's clock showed at least when it was asked; None if that is
            not known: then only a later candle shows that a period is over.
    """
    if pending_ms is not None or earliest_ms is None:
        return pending_ms
    return timeframe.floor(earliest_ms - min(_QUIET_MS, timeframe.ms // 2))


def without_holes(
    candles: Iterable[Candle], until_ms: int | None, timeframe: Timeframe
) -> list[Candle]:
    """Put flat candles where an exchange leaves out periods without a trade.

    Args:
        candles: closed ones of one symbol, ascending.
        until_ms: a boundary up to which periods are known to be over and complete; None: only
            those between two candles are.
        timeframe: the grid.
    """
    whole: list[Candle] = []
    for candle in candles:
        if whole:
            whole += _flat(whole[-1], candle.open_ms, timeframe)
        whole.append(candle)
    if whole and until_ms is not None:
        whole += _flat(whole[-1], until_ms, timeframe)
    return whole


def _flat(before: Candle, until_ms: int, timeframe: Timeframe) -> list[Candle]:
    close = before.ohlcv.close
    ohlcv = Ohlcv(close, close, close, close, 0.0)
    opens = range(before.close_ms, until_ms, timeframe.ms)
    return [
        before._replace(open_ms=at, close_ms=at + timeframe.ms, ohlcv=ohlcv, filled=True)
        for at in opens
    ]


class ClosingRule:
    """Turns the updates of many symbols into final candles.

    A candle is final when the exchange says so, or, where the exchange has no such flag, when the
    next candle of the symbol has begun. The first candle that is seen of a symbol may be partial:
    without a flag it only primes. A rule is good for one connection: what closed between two is
    for the exchange's history to tell.

    Attributes:
        timeframe: the grid; to be set when it becomes known where the exchange's begins.
    """

    def __init__(self, timeframe: Timeframe, max_skew_ms: int) -> None:
        """Start without any forming candle.

        Args:
            timeframe: the grid of the candles.
            max_skew_ms: how far this machine's clock may lag behind the exchange's; a candle
                that is said to have closed later than that in the future is refused.
        """
        self.timeframe = timeframe
        self._max_skew_ms = max_skew_ms
        self._forming: dict[str, Candle] = {}
        self._primed_ms: dict[str, int] = {}

    def forming(self, symbol: str) -> Candle | None:
        """The latest state of the symbol's unfinished candle."""
        return self._forming.get(symbol)

    def is_priming(self, symbol: str) -> bool:
        """Whether the symbol's unfinished candle is the first that was seen."""
        forming = self._forming.get(symbol)
        return forming is None or forming.open_ms <= self._primed_ms[symbol]

    def update(
        self,
        symbol: str,
        open_ms: object,
        values: tuple[object, ...],
        *,
        closed: bool | None,
        now_ms: int,
        now_s: float,
    ) -> Candle | None:
        """Take in one update.

        Args:
            symbol: ccxt symbol.
            open_ms: opening time as the exchange sent it.
            values: open, high, low, close, volume as the exchange sent them.
            closed: the exchange's flag; None where it has none.
            now_ms: wall clock at arrival.
            now_s: monotonic clock at arrival.

        Returns:
            The candle that this update makes final, if it does.

        Raises:
            BadCandle: the update cannot be true.
        """
        opened = check_open_ms(open_ms, self.timeframe, now_ms + self._max_skew_ms)
        final_by: FinalBy | None = "exchange_flag" if closed else None
        try:
            ohlcv, repaired = streamed_ohlcv(values)
        except BadCandle:
            forming = self._forming.get(symbol)
            if forming is not None and forming.open_ms == opened:
                # Its values are not the last ones: the next candle must not make them final.
                del self._forming[symbol]
            raise
        candle = Candle(
            symbol,
            opened,
            opened + self.timeframe.ms,
            ohlcv,
            now_ms,
            now_s,
            final_by,
            repaired=repaired,
        )
        known_at_ms = candle.close_ms if closed else opened
        if known_at_ms > now_ms + self._max_skew_ms:
            what = "close" if closed else "begin"
            msg = f"{symbol}: a candle is said to {what} {known_at_ms - now_ms} ms from now"
            raise BadCandle(msg)
        if closed:
            self._drop_forming(symbol, opened)
            return candle
        primed_ms = self._primed_ms.setdefault(symbol, opened)
        before = self._forming.get(symbol)
        if before is not None and before.open_ms > opened:
            return None
        self._forming[symbol] = candle
        if closed is False or before is None or not primed_ms < before.open_ms < opened:
            return None
        return before._replace(received_ms=now_ms, received_s=now_s, final_by="successor")

    def _drop_forming(self, symbol: str, opened: int) -> None:
        forming = self._forming.get(symbol)
        if forming is not None and forming.open_ms <= opened:
            del self._forming[symbol]
