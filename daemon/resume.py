"""Windows go on with the candles that the last process wrote down; REST brings only the rest."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.clock import Clock
    from daemon.recorder import Recorder
    from daemon.window import Window
    from model.candle import Candle, Timeframe

log = logging.getLogger(__name__)


def resumable(
    candles: Sequence[Candle], capacity: int, timeframe: Timeframe, now_ms: int
) -> Sequence[Candle]:
    """The newest candles of a history that a window can go on from; empty if it must start anew.

    A hole may be a period without trades or a candle that was never written: nothing before one
    is used. What is left must, with all that has closed since, fill a window.

    Args:
        candles: of one symbol, ascending, with holes perhaps.
        capacity: candles that a window holds.
        timeframe: the grid.
        now_ms: the exchange's time, Unix milliseconds.
    """
    start = len(candles)
    while start and (
        start == len(candles) or candles[start - 1].close_ms == candles[start].open_ms
    ):
        start -= 1
    tail = candles[start:]
    if not tail or tail[-1].close_ms > now_ms:
        return ()
    first_needed_ms = timeframe.floor(now_ms) - capacity * timeframe.ms
    return tail if tail[0].open_ms <= first_needed_ms < tail[-1].close_ms else ()


async def resume(
    windows: Sequence[Window],
    recorder: Recorder,
    market: tuple[str, Timeframe],
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
    exchange, timeframe = market
    resumed = 0
    for window in windows:
        symbol = window.symbol
        candles = await recorder.read(
            lambda history, symbol=symbol: history.candles(  # type: ignore[misc]
                exchange, symbol, timeframe.text, capacity
            )
        )
        if tail := resumable(candles, capacity, timeframe, clock.wall_ms()):
            window.repair(tail)
            resumed += 1
    log.info("%d of %d symbols go on from history", resumed, len(windows))
