"""Fill windows with the candles that the last process wrote down; REST brings only the rest."""

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


class Resumable(NamedTuple):
    """What a window can use of a history; both parts are empty if it must start anew.

    Attributes:
        joined: consecutive candles, the oldest one needed among them.
        later: candles behind the first hole, ascending, with further holes perhaps. They wait
            beside the window until REST brings what is missing.
    """

    joined: Sequence[Candle]
    later: Sequence[Candle]


def resumable(
    candles: Sequence[Candle], capacity: int, timeframe: Timeframe, now_ms: int
) -> Resumable:
    """Choose what a window can use of a history.

    A hole may be a period without trades or a candle that was never written, e.g. because the
    process was killed between a candle of the stream and the REST answer that joins it. REST is
    asked for everything from the first hole on, so the candles before it must reach back to the
    oldest one that the window needs now.

    Args:
        candles: of one symbol, ascending, with holes perhaps. Those that have not closed at
            ``now_ms`` or are off the grid are not used.
        capacity: candles that a window holds.
        timeframe: the grid.
        now_ms: the exchange's time, Unix milliseconds.
    """
    oldest_ms = timeframe.floor(now_ms) - capacity * timeframe.ms
    usable = [c for c in candles if c.close_ms <= now_ms and timeframe.on_grid(c.open_ms)]
    start = next((at for at, c in enumerate(usable) if c.open_ms == oldest_ms), None)
    if start is None:
        return Resumable((), ())
    while start and usable[start - 1].close_ms == usable[start].open_ms:
        start -= 1
    end = start + 1
    while end < len(usable) and usable[end - 1].close_ms == usable[end].open_ms:
        end += 1
    return Resumable(usable[start:end], usable[end:])


async def resume(
    windows: Sequence[Window],
    recorder: Recorder,
    market: MarketKey,
    capacity: int,
    clock: Clock,
) -> None:
    """Prime every window that can be, from the history.

    Args:
        windows: empty ones.
        recorder: the way to the history.
        market: ccxt exchange id and timeframe.
        capacity: candles that a window holds.
        clock: the exchange's time.

    Raises:
        HistoryError: it cannot be read.
    """
    timeframe = market.timeframe
    resumed = with_holes = 0
    for window in windows:
        now_ms = clock.wall_ms()
        newest_ms = timeframe.floor(now_ms) - timeframe.ms
        candles = await recorder.read(
            lambda history, symbol=window.symbol, newest_ms=newest_ms: history.candles(  # type: ignore[misc]
                market, symbol, capacity, newest_ms
            )
        )
        found = resumable(candles, capacity, timeframe, now_ms)
        if found.joined:
            window.repair(found.joined)
            for candle in found.later:
                window.add(candle)
            resumed += 1
            with_holes += bool(found.later)
    holes = f"; {with_holes} of them have holes that REST fills" if with_holes else ""
    oldest_ms = timeframe.floor(clock.wall_ms()) - capacity * timeframe.ms
    odd = await recorder.read(lambda h: h.count_off_grid(market, oldest_ms))
    if odd:
        log.warning("%d candles of the history are off the %s grid, not used", odd, timeframe.text)
    log.info("%d of %d symbols go on from history%s", resumed, len(windows), holes)
