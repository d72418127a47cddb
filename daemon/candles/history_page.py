"""Parse pages of an exchange's history into final candles. No I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.candles.closing import grace_ms
from model.core.candle import Candle, Ohlcv, check_open_ms, is_untraded, repair_ohlcv
from model.core.errors import BadCandle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.core.candle import Repaired, Timeframe

_UNTRADED_AFTER_MS: Final = 8_000
"""A candle that the history still lacks this long after its boundary had no trade."""


class CandleVolume(NamedTuple):
    """State of a candle with trades; a later state of it, or a later candle, compares as greater.

    Attributes:
        open_ms: opening time, Unix milliseconds.
        volume: traded so far.
    """

    open_ms: int
    volume: float


class HistoryPage(NamedTuple):
    """Contents of a page of an exchange's history.

    Attributes:
        final: closed candles, ascending.
        impossible: errors of the rows that cannot be true.
        unusable: opening times of closed periods that only have such a row. They are missing in
            ``final`` and must not be taken for periods without trades.
        pending_ms: opening time of the first candle that is not final; None if there is none.
    """

    final: list[Candle]
    impossible: list[BadCandle]
    unusable: frozenset[int]
    pending_ms: int | None


def parse_history(
    symbol: str,
    rows: Sequence[Sequence[object]],
    timeframe: Timeframe,
    earliest_ms: int | None,
    arrived: tuple[int, float],
) -> HistoryPage:
    """Pick the final candles from a page of the exchange's history.

    The time of the request decides: the page holds the candle that was forming then, which may
    have closed by the time the page arrives.

    Args:
        symbol: ccxt symbol.
        rows: opening time, open, high, low, close, volume of each candle, ascending.
        timeframe: the grid.
        earliest_ms: lower bound of the exchange's time when the request was sent; None if it is
            not known: then a candle is final only if the page holds a later one.
        arrived: wall clock (ms) and monotonic clock (s) when the page came.
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
            values = repair_ohlcv(tuple(row[1:6]))
        except BadCandle as error:
            impossible.append(error)
            if period_ms is not None:
                periods.add(period_ms)
            continue
        # Of two rows for one candle the later one counts, as the later of two revisions does.
        if opened not in known or not values.repaired:
            known[opened] = values
    newest_ms = max(known, default=0)
    over_ms = newest_ms if earliest_ms is None else earliest_ms - grace_ms(timeframe)
    final = [
        Candle(
            symbol, opened, opened + timeframe.ms, values.ohlcv, *arrived, "rest",
            repaired=values.repaired,
        )
        for opened, values in sorted(known.items())
        if opened + timeframe.ms <= over_ms
    ]  # fmt: skip
    periods -= known.keys()
    unusable = frozenset(opened for opened in periods if opened + timeframe.ms <= over_ms)
    pending = (at for at in (*known, *periods) if at + timeframe.ms > over_ms)
    return HistoryPage(final, impossible, unusable, min(pending, default=None))


def _period_of(
    row: Sequence[object], timeframe: Timeframe, following_ms: int | None, now_ms: int
) -> int | None:
    """Opening time of a row's period, by its time or by its place; None if neither shows it.

    Args:
        row: opening time and values.
        timeframe: the grid.
        following_ms: opening time of the period after the row before; None if it is not known.
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
) -> CandleVolume | None:
    """The newest candle with trades in a page of the history; None if there is none.

    Args:
        rows: as for `parse_history`.
        timeframe: the grid.
        now_ms: wall clock, Unix milliseconds.
    """
    traded = []
    close: float | None = None
    for row in rows:
        try:
            opened = check_open_ms(row[0] if row else None, timeframe, now_ms)
            ohlcv = repair_ohlcv(tuple(row[1:6])).ohlcv
        except BadCandle:
            continue
        if not is_untraded(ohlcv, close):
            traded.append(CandleVolume(opened, ohlcv.volume))
        close = ohlcv.close
    return max(traded, default=None)


def untraded_until_ms(
    pending_ms: int | None, timeframe: Timeframe, earliest_ms: int | None
) -> int | None:
    """The boundary before which periods that a history leaves out had no trade.

    Args:
        pending_ms: as of `HistoryPage`.
        timeframe: the grid.
        earliest_ms: lower bound of the exchange's time when the request was sent; None if it is
            not known: then only a later candle shows that a period is over.

    Returns:
        The boundary, Unix milliseconds; None if it is not known.
    """
    if pending_ms is not None or earliest_ms is None:
        return pending_ms
    return timeframe.floor(earliest_ms - min(_UNTRADED_AFTER_MS, timeframe.ms // 2))


def fill_untraded(
    candles: Iterable[Candle], until_ms: int | None, timeframe: Timeframe
) -> list[Candle]:
    """Insert flat candles where an exchange leaves out periods without a trade.

    Args:
        candles: closed ones of one symbol, ascending.
        until_ms: boundary before which all periods are closed and complete; None: only those
            between two candles are known to be.
        timeframe: the grid.
    """
    complete: list[Candle] = []
    for candle in candles:
        if complete:
            complete += _flat_candles(complete[-1], candle.open_ms, timeframe)
        complete.append(candle)
    if complete and until_ms is not None:
        complete += _flat_candles(complete[-1], until_ms, timeframe)
    return complete


def _flat_candles(before: Candle, until_ms: int, timeframe: Timeframe) -> list[Candle]:
    close = before.ohlcv.close
    ohlcv = Ohlcv(close, close, close, close, 0.0)
    opens = range(before.close_ms, until_ms, timeframe.ms)
    return [
        before._replace(open_ms=at, close_ms=at + timeframe.ms, ohlcv=ohlcv, filled=True)
        for at in opens
    ]
