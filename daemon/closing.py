"""The closed-candle rule: which update makes a candle final. No I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.candle import Candle, check_ohlcv, check_open_ms
from model.errors import BadCandle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.candle import FinalBy, Timeframe


SETTLED_MS = 250
"""An exchange's history may lag behind its stream by so much."""


def final_by_rest(
    symbol: str,
    rows: Sequence[Sequence[object]],
    timeframe: Timeframe,
    asked_ms: int,
    arrived: tuple[int, float],
) -> tuple[list[Candle], list[BadCandle]]:
    """Pick the final candles from an answer of the exchange's history.

    What counts is when the question was asked: the answer holds the candle that was forming then,
    and that may have closed by the time it arrives.

    Args:
        symbol: ccxt symbol.
        rows: opening time, open, high, low, close, volume of each candle, ascending.
        timeframe: the grid.
        asked_ms: wall clock when the request was sent.
        arrived: wall clock (ms) and monotonic clock (s) when the answer came.

    Returns:
        The final candles, and why others cannot be true.
    """
    final: list[Candle] = []
    impossible: list[BadCandle] = []
    for row in rows:
        try:
            opened = check_open_ms(row[0] if row else None, timeframe, arrived[0])
            ohlcv = check_ohlcv(tuple(row[1:6]))
        except BadCandle as error:
            impossible.append(error)
            continue
        close_ms = opened + timeframe.ms
        if close_ms + SETTLED_MS <= asked_ms:
            final.append(Candle(symbol, opened, close_ms, ohlcv, *arrived, "rest"))
    return final, impossible


class ClosingRule:
    """Turns the updates of many symbols into final candles.

    A candle is final when the exchange says so, or, where the exchange has no such flag, when the
    next candle of the symbol has begun.
    """

    def __init__(self, timeframe: Timeframe, max_skew_ms: int) -> None:
        """Start without any forming candle.

        Args:
            timeframe: the grid of the candles.
            max_skew_ms: how far this machine's clock may lag behind the exchange's; a candle
                that is said to have closed later than that in the future is refused.
        """
        self._timeframe = timeframe
        self._max_skew_ms = max_skew_ms
        self._forming: dict[str, Candle] = {}

    def forming(self, symbol: str) -> Candle | None:
        """The latest state of the symbol's unfinished candle."""
        return self._forming.get(symbol)

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
        opened = check_open_ms(open_ms, self._timeframe, now_ms + self._max_skew_ms)
        final_by: FinalBy | None = "exchange_flag" if closed else None
        candle = Candle(
            symbol,
            opened,
            opened + self._timeframe.ms,
            check_ohlcv(values),
            now_ms,
            now_s,
            final_by,
        )
        if closed:
            if candle.close_ms > now_ms + self._max_skew_ms:
                msg = f"{symbol}: a candle is said to close {candle.close_ms - now_ms} ms from now"
                raise BadCandle(msg)
            self._drop_forming(symbol, opened)
            return candle
        before = self._forming.get(symbol)
        if before is not None and before.open_ms > opened:
            return None
        self._forming[symbol] = candle
        if closed is None and before is not None and before.open_ms < opened:
            return before._replace(received_ms=now_ms, received_s=now_s, final_by="successor")
        return None

    def forget(self, symbols: Iterable[str]) -> None:
        """Drop forming candles: while disconnected their last update may have been missed."""
        for symbol in symbols:
            self._forming.pop(symbol, None)

    def _drop_forming(self, symbol: str, opened: int) -> None:
        forming = self._forming.get(symbol)
        if forming is not None and forming.open_ms <= opened:
            del self._forming[symbol]
