"""Fill windows with candles from the history, so that REST is asked for the missing ones only."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.candles.window import Window
    from daemon.persistence.recorder import Recorder
    from daemon.runtime.clock import Clock
    from model.core.candle import Candle, Timeframe
    from model.core.market import MarketKey

log = logging.getLogger("candlecast.persistence")


class UsableCandles(NamedTuple):
    """The candles of a history that a window can use; both parts are empty if it must start anew.

    Attributes:
        consecutive: candles without a gap, the oldest one needed among them.
        after_gap: candles after the first gap, ascending, possibly with further gaps. They wait
            beside the window until REST has filled the gaps.
    """

    consecutive: Sequence[Candle]
    after_gap: Sequence[Candle]


def usable_candles(
    candles: Sequence[Candle], capacity: int, timeframe: Timeframe, now_ms: int
) -> UsableCandles:
    """Choose the candles of a history that a window can use.

    A gap may be a period without trades or a candle that was never written, for example because the
    process was killed between a candle of the stream and the REST answer that joins it. REST is
    asked for everything from the first gap on, so the candles before it must reach back to the
    oldest one that the window needs now.

    Args:
        candles: of one symbol, ascending, possibly with gaps. Those that have not closed at
            ``now_ms`` or are off the grid are ignored.
        capacity: candles that a window holds.
        timeframe: the grid.
        now_ms: the exchange's time, Unix milliseconds.
    """
    oldest_ms = timeframe.floor(now_ms) - capacity * timeframe.ms
    usable = [c for c in candles if c.close_ms <= now_ms and timeframe.on_grid(c.open_ms)]
    start = next((at for at, c in enumerate(usable) if c.open_ms == oldest_ms), None)
    if start is None:
        return UsableCandles((), ())
    while start and usable[start - 1].close_ms == usable[start].open_ms:
        start -= 1
    end = start + 1
    while end < len(usable) and usable[end - 1].close_ms == usable[end].open_ms:
        end += 1
    return UsableCandles(usable[start:end], usable[end:])


async def resume(
    windows: Sequence[Window],
    recorder: Recorder,
    market: MarketKey,
    capacity: int,
    clock: Clock,
) -> None:
    """Fill every window for which the history has enough candles.

    Args:
        windows: empty.
        recorder: gives access to the history.
        market: ccxt exchange id and timeframe.
        capacity: candles that a window holds.
        clock: tells the exchange's time.

    Raises:
        HistoryError: the history cannot be read.
    """
    timeframe = market.timeframe
    filled = with_gaps = 0
    for window in windows:
        now_ms = clock.wall_ms()
        newest_ms = timeframe.floor(now_ms) - timeframe.ms
        candles = await recorder.execute(
            lambda history, symbol=window.symbol, newest_ms=newest_ms: history.candles(  # type: ignore[misc]
                market, symbol, capacity, newest_ms
            )
        )
        usable = usable_candles(candles, capacity, timeframe, now_ms)
        if usable.consecutive:
            window.merge_history(usable.consecutive)
            for candle in usable.after_gap:
                window.add_closed(candle)
            filled += 1
            with_gaps += bool(usable.after_gap)
    gaps = f"; {with_gaps} of them have gaps that REST fills" if with_gaps else ""
    oldest_ms = timeframe.floor(clock.wall_ms()) - capacity * timeframe.ms
    off_grid = await recorder.execute(lambda h: h.count_off_grid(market, oldest_ms))
    if off_grid:
        log.warning(
            "%d candles of the history are off the %s grid and are ignored",
            off_grid,
            timeframe.text,
        )
    log.info("%d of %d symbols resume from history%s", filled, len(windows), gaps)
